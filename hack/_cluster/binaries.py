"""Build the Kubernetes binaries from Debian's source package, once a machine."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from _cluster import machine
from _cluster.errors import ClusterError
from _cluster.home import Home
from _cluster.shell import run, step

VERSION = "1.20.2"
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")

_GOCODE = Path("/usr/share/gocode/src/github.com")
# The vendored reflect2 1.0.1 makes the API server crash when compiled by Go 1.18 or later; Debian's 1.0.2 does not.
_OVERLAID = ("modern-go/reflect2", "json-iterator/go")
_IMPORT_PATH = "k8s.io/kubernetes"


def missing(home: Home) -> list[str]:
    """The binaries that are still to be built."""
    return [name for name in COMPONENTS if not (home.bin / name).exists()]


def build(home: Home) -> None:
    """Make sure that every binary is in `home.bin`. An interrupted build goes on with the binary it had reached."""
    absent = missing(home)
    if absent:
        machine.install(machine.BUILD_PACKAGES)
        if not _prepared(home).exists():
            _prepare_source(home)
        home.bin.mkdir(parents=True, exist_ok=True)
        for name in absent:
            with step(f"building {name}"):
                _compile(home, name)
        shutil.rmtree(home.build)
    if not (home.bin / "etcd").exists():
        _link_etcd(home)


def version_flags(version: str) -> str:
    """The linker flags that tell the binaries their own version."""
    major, minor, _ = version.split(".")
    library = f"{_IMPORT_PATH}/vendor/k8s.io"
    stamps = {
        f"{library}/component-base/version.gitVersion": f"v{version}",
        f"{library}/component-base/version.gitMajor": major,
        f"{library}/component-base/version.gitMinor": minor,
        f"{library}/client-go/pkg/version.gitVersion": f"v{version}",
    }
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in stamps.items())])


def _prepared(home: Home) -> Path:
    """The marker that says: the source is complete and patched."""
    return home.build / "prepared"


def _prepare_source(home: Home) -> None:
    shutil.rmtree(home.build, ignore_errors=True)
    home.build.mkdir(parents=True)
    with step(f"fetching the source of Kubernetes {VERSION}"):
        _fetch_source(home.build)
        run("dpkg-source", "-x", _description(home), _source(home), timeout=300)
    for package in _OVERLAID:
        vendored = _source(home) / "vendor/github.com" / package
        shutil.rmtree(vendored)
        shutil.copytree(_GOCODE / package, vendored, ignore=shutil.ignore_patterns("*_test.go"))
    checkout = _checkout(home)
    checkout.parent.mkdir(parents=True)
    checkout.symlink_to(_source(home))
    with step("generating the OpenAPI definitions"):
        run("make", "gen_openapi", cwd=checkout, env=_go_environment(home), timeout=900)
    _prepared(home).touch()


def _fetch_source(folder: Path) -> None:
    """Download the source package with package lists of its own, so that the machine's apt sources stay as they are."""
    lists = folder / "apt-lists"
    (lists / "partial").mkdir(parents=True)
    sources = folder / "source.sources"
    sources.write_text(
        f"Types: deb-src\nURIs: {machine.mirror()}\nSuites: {machine.CODENAME}\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    )
    # The sandbox user of apt may not write here; the signatures are checked all the same.
    options = [
        f"Dir::Etc::SourceList={sources}",
        "Dir::Etc::SourceParts=/dev/null",
        f"Dir::State::Lists={lists}",
        "APT::Sandbox::User=root",
    ]
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    run(*apt, "update", timeout=300)
    run(*apt, "source", "--download-only", "kubernetes", cwd=folder, timeout=600)


def _compile(home: Home, name: str) -> None:
    unfinished = home.bin / f".{name}.new"
    arguments = ("-trimpath", "-ldflags", version_flags(VERSION), "-o", str(unfinished), f"{_IMPORT_PATH}/cmd/{name}")
    run("go", "build", *arguments, cwd=_checkout(home), env=_go_environment(home), timeout=1800)
    unfinished.rename(home.bin / name)


def _link_etcd(home: Home) -> None:
    etcd = shutil.which("etcd")
    if etcd is None:
        raise ClusterError("etcd is not on the path although the package etcd-server is installed")
    (home.bin / "etcd").symlink_to(etcd)


def _go_environment(home: Home) -> Mapping[str, str]:
    return {
        "GOPATH": str(home.build / "gopath"),
        "GO111MODULE": "off",
        "CGO_ENABLED": "0",
        "GOCACHE": str(home.build / "cache"),
        # Kubernetes' makefiles ask the shell where they are; the real path would lie outside GOPATH.
        "PWD": str(_checkout(home)),
    }


def _source(home: Home) -> Path:
    return home.build / "source"


def _checkout(home: Home) -> Path:
    return home.build / "gopath/src" / _IMPORT_PATH


def _description(home: Home) -> Path:
    found = list(home.build.glob("kubernetes_*.dsc"))
    if len(found) != 1:
        raise ClusterError(f"expected one Kubernetes source package in {home.build} and found {len(found)}")
    return found[0]
