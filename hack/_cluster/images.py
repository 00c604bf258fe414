"""Build images with buildah, and the base image that they stand on."""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from _cluster import machine
from _cluster.home import Home
from _cluster.shell import Argument, run, run_visibly, step

BASE = "docker.io/library/python:3.11-slim"
_BASE_PACKAGES = "python3,python3-venv,ca-certificates,libgomp1"
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def build(
    home: Home, name: str, dockerfile: Path, context: Path, arguments: Iterable[str], environ: Mapping[str, str]
) -> None:
    """Build an image. `arguments` are build arguments as NAME=VALUE; `environ` may hold pip's settings."""
    machine.install(machine.RUNTIME_PACKAGES)
    previous = image_id(home, name)
    if f"FROM {BASE.rpartition('/')[2]}" in dockerfile.read_text():
        make_base(home)
    build_arguments = (word for argument in arguments for word in ("--build-arg", argument))
    options = [*_PER_BUILD, *pip_options(environ), *build_arguments]
    with step(f"building {name}"):
        # The cache mounts of a build lie in TMPDIR: inside the state folder they outlive a reboot.
        cache = {"TMPDIR": str(_folder(home.root / "build-cache"))}
        command = _buildah(home, "build", *options, "-t", name, "-f", dockerfile, context)
        run_visibly(*command, timeout=1800, env=cache)
    if previous and previous != image_id(home, name):
        run(*_buildah(home, "rmi", previous), check=False)


def make_base(home: Home) -> None:
    """Make the base image out of Debian packages, under the name that Dockerfiles know it by, unless it is there."""
    if image_id(home, BASE):
        return
    machine.install(machine.RUNTIME_PACKAGES)
    folder = _folder(home.base_image)
    root = folder / "root.tar"
    with step(f"making {BASE} of Debian packages"):
        if not root.exists():
            unfinished = folder / "unfinished.tar"
            options = ["--variant=minbase", f"--include={_BASE_PACKAGES}"]
            options += [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "info", "locale", "man")]
            run("mmdebstrap", *options, machine.CODENAME, unfinished, machine.mirror(), timeout=900)
            unfinished.rename(root)
        # Builds reach package indexes as this machine does, so they trust whom it trusts.
        shutil.copy(_AUTHORITIES, folder / "authorities.crt")
        (folder / "pip.conf").write_text(f"[global]\ncert = {_AUTHORITIES}\n")
        (folder / "Dockerfile").write_text(
            "FROM scratch\n"
            "ADD root.tar /\n"
            f"COPY authorities.crt {_AUTHORITIES}\n"
            "COPY pip.conf /etc/pip.conf\n"
            "RUN ln -s python3 /usr/bin/python\n"
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
            'CMD ["python3"]\n'
        )
        run(*_buildah(home, "build", "--isolation", "chroot", "-t", BASE, folder), timeout=600)
        root.unlink()


def image_id(home: Home, name: str) -> str | None:
    """The id (the digest of its configuration, without "sha256:") of a built image, or None."""
    found = run(*_buildah(home, "images", "--no-trunc", "--quiet", name), check=False).split()
    return found[0].removeprefix("sha256:") if found else None


def export_command(home: Home, name: str) -> tuple[Argument, ...]:
    """The command that writes an image to its standard output, in Docker's archive format."""
    return _buildah(home, "push", "--quiet", name, f"docker-archive:/dev/stdout:{name}")


def pip_options(environ: Mapping[str, str]) -> Iterator[str]:
    """The options that let pip find, inside a build, what it finds on this machine.

    PIP_FIND_LINKS may name folders of wheels, which the build then sees at the same place; PIP_INDEX_URL and
    PIP_EXTRA_INDEX_URL may hold `file:` addresses, of which the same is true.
    """
    for variable in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        value = environ.get(variable)
        if not value:
            continue
        for place in value.split():
            folder = place.removeprefix("file://")
            if Path(folder).is_absolute() and Path(folder).is_dir():
                yield from ("--volume", f"{folder}:{folder}:ro")
        yield from ("--build-arg", f"{variable}={value}")


_PER_BUILD = ("--isolation", "chroot", "--layers")


def _buildah(home: Home, *arguments: Argument) -> tuple[Argument, ...]:
    return ("buildah", "--root", home.buildah, "--storage-driver", "overlay", *arguments)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
