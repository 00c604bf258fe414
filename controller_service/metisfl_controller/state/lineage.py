"""The last updates of each learner, on disk for whoever wants to look at them. Nothing depends on them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Buffer
from metisfl_controller.rounds.tasks import TaskId
from metisfl_controller.state.models import write_model

_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class KeptUpdate:
    """One update: what `learner` made of version `base_version`. `file` is relative to the lineage's directory."""

    learner: str
    base_version: int
    file: str
    bytes: int
    created_at: float


class Lineage:
    """A folder for each learner, with a safetensors file for each of its last `keep` updates.

    The file holds all tensors in their own dtype. Its metadata says whether they are a whole model, or an update: then
    trainable floating-point tensors are differences to the base version as the learner received it.
    """

    def __init__(self, directory: Path, keep: int, allocate: Callable[[int], Buffer]) -> None:
        """`allocate` makes zeroed, aligned buffers to decode narrowed updates into; it may raise OSError."""
        self._directory = directory
        self._keep = keep
        self._allocate = allocate

    def write(self, task: TaskId, encoding: Encoding, content: Buffer) -> None:
        """Keep the result of a task, and remove its learner's oldest beyond `keep`. Blocks; raises OSError."""
        folder = self._directory / task.learner
        # Incarnations and attempts tell apart what is made of one version.
        path = folder / f"v{task.base_version:06}-{task.incarnation:04}-{task.attempt:02}{_SUFFIX}"
        into = None if encoding.codec is Codec.FLOAT32 else self._allocate(encoding.layout.nbytes)
        metadata = {
            "metisfl.learner": task.learner,
            "metisfl.base_version": str(task.base_version),
            "metisfl.kind": "update" if encoding.updates else "model",
            "metisfl.codec": str(encoding.codec),
        }
        try:
            write_model(path, encoding.layout, encoding.decode(content, into), metadata)
        finally:
            path.with_suffix(".tmp").unlink(missing_ok=True)
        for outdated in sorted(folder.glob(f"*{_SUFFIX}"), key=_age)[: -self._keep]:
            outdated.unlink(missing_ok=True)

    def updates(self) -> list[KeptUpdate]:
        """All that is kept, by learner, oldest first. Blocks."""
        kept = []
        paths = self._directory.glob(f"*/*{_SUFFIX}")
        for path in sorted(paths, key=lambda path: (path.parent.name, _age(path))):
            with suppress(FileNotFoundError):  # evicted meanwhile
                stat = path.stat()
                base = int(path.name[1:].partition("-")[0])
                file = str(path.relative_to(self._directory))
                kept.append(KeptUpdate(path.parent.name, base, file, stat.st_size, stat.st_mtime))
        return kept


def _age(path: Path) -> tuple[int, int, int]:
    """Larger in younger files: a restarted controller without checkpoints begins again at version 0, and what came
    before is older all the same."""
    base, incarnation, attempt = map(int, path.name[1:].removesuffix(_SUFFIX).split("-"))
    return incarnation, base, attempt
