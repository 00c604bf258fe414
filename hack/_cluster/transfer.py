"""Move an image from buildah's storage to containerd's, leaving out the layers that are there already.

buildah writes Docker's archive format to a pipe (it is the one that it does not compress), containerd reads OCI's from
another, and the layers pass between them once and without a file: most of a large image is then never written at all.
"""

import contextlib
import hashlib
import json
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, Any

from _cluster.errors import ClusterError
from _cluster.shell import Argument, environment, tail

_SECONDS = 900.0
_BUFFER = 1 << 20


def pipe(producer: Sequence[Argument], consumer: Sequence[Argument], name: str, present: Collection[str]) -> None:
    """Run both commands with `convert` between them.

    Raises ClusterError, with what a command printed, when one of them fails or all of it outlasts its deadline.
    """
    with (
        _Process(producer, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as source,
        _Process(consumer, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as sink,
        _deadline(source, sink),
    ):
        broken: Exception | None = None
        try:
            with sink.input as out, source.output as archive:
                convert(archive, out, name, present)
        except (OSError, tarfile.TarError) as error:
            broken = error
        # When one side has failed, the other may only complain about the stream, so both are heard.
        failures = [failure for process in (source, sink) if (failure := process.failure())]
        if failures or broken:
            raise ClusterError("\n".join(failures) or f"the archive of {name} could not be read: {broken}") from broken


def convert(docker_archive: IO[bytes], oci_archive: IO[bytes], name: str, present: Collection[str]) -> None:
    """Turn a stream in Docker's archive format into one in OCI's, without the layers whose digest is `present`.

    Digests are written "sha256:…". Layers are expected to be uncompressed, so that a layer's digest is its diff id.
    """
    content = _Content()
    with (
        tarfile.open(fileobj=docker_archive, mode="r|", bufsize=_BUFFER) as source,
        tarfile.open(fileobj=oci_archive, mode="w|", bufsize=_BUFFER) as target,
    ):
        for member in source:
            stem, _, kind = member.name.partition(".")
            if not member.isfile() or "/" in stem or kind not in {"tar", "json"}:
                continue
            body = source.extractfile(member)
            assert body is not None
            if member.name == "manifest.json":
                content.order = json.load(body)[0]
                continue
            digest = f"sha256:{stem}"
            content.sizes[member.name] = member.size
            if kind == "json" or digest not in present:
                _add(target, _blob(digest), body, member.size)
        for path, document in content.documents(name):
            _add(target, path, BytesIO(document), len(document))


@dataclass
class _Content:
    """What an archive turned out to hold: its files' sizes, and Docker's list of them."""

    sizes: dict[str, int] = field(default_factory=dict)
    order: Mapping[str, Any] = field(default_factory=dict)

    def documents(self, name: str) -> Iterator[tuple[str, bytes]]:
        """The files that make a heap of blobs an OCI image: path and bytes."""
        image = "application/vnd.oci.image"
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": f"{image}.manifest.v1+json",
                "config": self._descriptor(f"{image}.config.v1+json", self.order["Config"]),
                "layers": [self._descriptor(f"{image}.layer.v1.tar", layer) for layer in self.order["Layers"]],
            }
        ).encode()
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        entry = {
            "mediaType": f"{image}.manifest.v1+json",
            "digest": digest,
            "size": len(manifest),
            "annotations": {"io.containerd.image.name": name},
        }
        yield _blob(digest), manifest
        yield "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
        yield "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode()

    def _descriptor(self, media_type: str, file: str) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": f"sha256:{file.partition('.')[0]}", "size": self.sizes[file]}


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _add(archive: tarfile.TarFile, path: str, body: IO[bytes], size: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.size = size
    archive.addfile(entry, body)


class _Process:
    """A command at one end of the pipe; it does not outlive the `with` block."""

    def __init__(self, command: Sequence[Argument], *, stdin: int, stdout: int) -> None:
        self._name = str(command[0])
        # A file and not a pipe, because nobody reads it while the process runs.
        self._words = tempfile.TemporaryFile()  # noqa: SIM115
        argv = [str(part) for part in command]
        self._process = subprocess.Popen(argv, env=environment(), stdin=stdin, stdout=stdout, stderr=self._words)

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.wait()
        self._words.close()

    @property
    def input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def output(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def kill(self) -> None:
        self._process.kill()

    def failure(self) -> str | None:
        """Wait for the end, and say how the command failed if it did."""
        code = self._process.wait()
        if not code:
            return None
        self._words.seek(0)
        return f"`{self._name}` ended with {code}:\n{tail(self._words.read().decode(errors='replace'))}"


@contextlib.contextmanager
def _deadline(*processes: _Process) -> Iterator[None]:
    """Kill the processes when the block takes too long; their end then ends the block."""
    timers = [threading.Timer(_SECONDS, process.kill) for process in processes]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
