"""The images in the node's containerd: which there are, and how one gets there."""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from _cluster import components, images, transfer
from _cluster.errors import ClusterError
from _cluster.home import Home
from _cluster.processes import Processes
from _cluster.shell import Argument, run, step


@dataclass(frozen=True)
class Manifest:
    """What an image consists of, as digests ("sha256:…"); nothing for an index of several platforms."""

    config: str
    layers: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Manifest":
        document: Mapping[str, Any] = json.loads(text)
        layers = tuple(layer["digest"] for layer in document.get("layers", ()))
        return cls(document.get("config", {}).get("digest", ""), layers)


def load(home: Home, name: str) -> None:
    """Copy a built image into the node, unless it is there."""
    if not Processes(home).running("containerd"):
        raise ClusterError("the cluster does not run, so the image cannot be loaded: start it with `hack/cluster up`")
    built = images.image_id(home, name)
    if built is None:
        raise ClusterError(f"there is no image {name}: build it first")
    present = _images(home)
    manifests = {reference: _manifest(home, digest) for reference, digest in named(present).items()}
    if name in manifests and manifests[name].config == f"sha256:{built}":
        return
    layers = {layer for manifest in manifests.values() for layer in manifest.layers}
    with step(f"loading {name}"):
        if name in present:
            _replace(home, name, layers)
        else:
            _import(home, name, layers)


def make_pause(home: Home) -> None:
    """Make and load the image of the process that holds a pod's namespaces, unless it is there."""
    name = components.PAUSE_IMAGE
    if name in _images(home):
        return
    folder = home.root / "pause"
    folder.mkdir(exist_ok=True)
    shutil.copy("/bin/busybox", folder / "busybox")
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text('FROM scratch\nCOPY busybox /busybox\nENTRYPOINT ["/busybox", "sleep", "2147483647"]\n')
    images.build(home, name, dockerfile, folder, (), {})
    load(home, name)


def answers(home: Home) -> bool:
    """Whether containerd can be asked."""
    return home.containerd_socket.exists() and "Server:" in ctr(home, "version", check=False)


def delete_containers(home: Home) -> None:
    """Kill and forget every container."""
    for task in ctr(home, "tasks", "ls", "-q", check=False).split():
        ctr(home, "tasks", "rm", "--force", task, check=False)
    for container in ctr(home, "containers", "ls", "-q", check=False).split():
        ctr(home, "containers", "rm", container, check=False)


def ctr(home: Home, *arguments: Argument, check: bool = True) -> str:
    """containerd's own client, in the namespace that the kubelet uses."""
    return run(*_ctr(home, *arguments), check=check)


def parse_images(listing: str) -> dict[str, str]:
    """Digest by reference, from what `ctr images ls` prints (columns: reference, type, digest, …)."""
    rows = (line.split() for line in listing.splitlines()[1:])
    return {row[0]: row[2] for row in rows if len(row) > 2}


def named(present: Mapping[str, str]) -> dict[str, str]:
    """The images that have a name; the kubelet's runtime adds references by the digest of the configuration."""
    return {reference: digest for reference, digest in present.items() if not reference.startswith("sha256:")}


def orphans(present: Mapping[str, str]) -> list[str]:
    """The references to images that no name leads to any more."""
    kept = set(named(present).values())
    return [reference for reference, digest in present.items() if digest not in kept]


def _replace(home: Home, name: str, layers: Iterable[str]) -> None:
    """Import an image in the place of another version of it.

    An import renames first and unpacks then, and in between containerd may throw away the layers that only the former
    version referred to and the new one builds upon. So that one keeps a name until the end.
    """
    former = f"{name}.former"
    ctr(home, "images", "tag", "--force", name, former)
    try:
        _import(home, name, layers)
    except BaseException:
        ctr(home, "images", "tag", "--force", former, name)
        raise
    finally:
        left = _images(home)
        left.pop(former)
        # Synchronously: containerd has cleaned up when this returns, and not in the middle of the next import.
        for reference in (former, *orphans(left)):
            ctr(home, "images", "rm", "--sync", reference)


def _import(home: Home, name: str, layers: Iterable[str]) -> None:
    stored = set(ctr(home, "content", "ls", "-q").split())
    transfer.pipe(images.export_command(home, name), _ctr(home, "images", "import", "-"), name, stored & set(layers))


def _images(home: Home) -> dict[str, str]:
    return parse_images(ctr(home, "images", "ls"))


def _manifest(home: Home, digest: str) -> Manifest:
    return Manifest.parse(ctr(home, "content", "get", digest))


def _ctr(home: Home, *arguments: Argument) -> tuple[Argument, ...]:
    return ("ctr", "-a", home.containerd_socket, "-n", "k8s.io", *arguments)
