"""Whether this machine can run the cluster, and the Debian packages that it needs."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from _cluster.errors import ClusterError, NotPossibleHereError
from _cluster.shell import run, step

CODENAME = "bookworm"

RUNTIME_PACKAGES = (
    "etcd-server",
    "containerd",
    "runc",
    "containernetworking-plugins",
    "iptables",
    "iproute2",
    "conntrack",
    "ethtool",
    "socat",
    "busybox-static",
    "dnsmasq-base",
    "openssl",
    "procps",
    "buildah",
    "mmdebstrap",
)
BUILD_PACKAGES = (
    "dpkg-dev",
    "golang-go",
    "make",
    "rsync",
    "jq",
    "golang-github-modern-go-reflect2-dev",
    "golang-github-json-iterator-go-dev",
    "golang-github-modern-go-concurrent-dev",
)

_CAP_NET_ADMIN = 12
_CAP_SYS_ADMIN = 21


def require_suitable_machine() -> None:
    """Raise NotPossibleHereError, with the first reason, unless the cluster can run on this machine."""
    reason = unsuitable(
        user_id=os.geteuid(),
        os_release=_read(Path("/etc/os-release")),
        process_status=_read(Path("/proc/self/status")),
    )
    if reason:
        raise NotPossibleHereError(reason)


def unsuitable(*, user_id: int, os_release: str, process_status: str) -> str | None:
    """Why the cluster cannot run, in one line, or None when it can.

    `os_release` and `process_status` are the texts of /etc/os-release and /proc/self/status.
    """
    if user_id != 0:
        return "the cluster needs root (it starts containers and a bridge); run as root or set METISFL_TEST_KUBECONFIG"
    release = parse_os_release(os_release)
    if (release.get("ID"), release.get("VERSION_CODENAME")) != ("debian", CODENAME):
        found = release.get("PRETTY_NAME", "an unknown system")
        return (
            f"the cluster is made of Debian 12 ({CODENAME}) packages and this is {found}; set METISFL_TEST_KUBECONFIG"
        )
    capabilities = _effective_capabilities(process_status)
    if not (capabilities >> _CAP_SYS_ADMIN & 1 and capabilities >> _CAP_NET_ADMIN & 1):
        return "this container lacks CAP_SYS_ADMIN or CAP_NET_ADMIN; run it privileged or set METISFL_TEST_KUBECONFIG"
    return None


def parse_os_release(text: str) -> Mapping[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key: value.strip().strip("\"'") for key, _, value in pairs}


def install(packages: Iterable[str]) -> None:
    """Install the Debian packages that are not there yet."""
    absent = [package for package in packages if not _installed(package)]
    if not absent:
        return
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with step(f"installing {len(absent)} Debian packages"):
        run("apt-get", "update", "-qq", env=quiet, timeout=600)
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *absent, env=quiet, timeout=1200)


def mirror() -> str:
    """The Debian mirror that this machine's apt is set up with."""
    found = find_mirror(_read(path) for path in _apt_sources())
    if found is None:
        raise ClusterError("no Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d: add one")
    return found


def find_mirror(sources: Iterable[str]) -> str | None:
    """The first address of a Debian archive in the texts of apt sources; comments are passed over."""
    for text in sources:
        for line in text.splitlines():
            for word in line.partition("#")[0].split():
                if "://" in word and word.rstrip("/").endswith("/debian"):
                    return word.rstrip("/")
    return None


def _apt_sources() -> list[Path]:
    apt = Path("/etc/apt")
    parts = sorted((apt / "sources.list.d").glob("*"))
    return [path for path in [*parts, apt / "sources.list"] if path.suffix in {".sources", ".list"}]


def _installed(package: str) -> bool:
    return run("dpkg-query", "-W", "-f", "${Status}", package, check=False) == "install ok installed"


def _effective_capabilities(process_status: str) -> int:
    for line in process_status.splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
