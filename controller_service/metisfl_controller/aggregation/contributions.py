"""Learners' last models on disk, for rules that go on using them: one file for each learner, mapped where it is read.

Which files count is for a manifest to say, which is stored with the model version that was made of them. So a file is
written and synced before a version names it, and removed once no stored version does.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from metisfl.durability import sync
from metisfl.wire.layout import Buffer
from metisfl_controller.aggregation.mapped import WRITTEN_BACK_BYTES, mapped_file, release


@dataclass(frozen=True)
class Contribution:
    """One learner's last model, and what it weighs."""

    file: str
    weight: float
    checksum: str
    """XXH3-64 of the file, in hexadecimal."""

    largest: tuple[float, ...] = ()
    """Of each segment, the largest |x|."""


class Contributions:
    """By learner. All methods block; nothing is durable until `sync`."""

    def __init__(self, directory: Path, nbytes: int) -> None:
        """`nbytes`: of each model. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._nbytes = nbytes
        self._of: dict[str, Contribution] = {}
        self._number = 0
        self._unsynced: set[str] = set()

    def __getitem__(self, learner: str) -> Contribution:
        return self._of[learner]

    def get(self, learner: str) -> Contribution | None:
        return self._of.get(learner)

    @property
    def learners(self) -> list[str]:
        """Everybody who has contributed, in the order of their names."""
        return sorted(self._of)

    def weighted_largest(self, segments: int) -> list[float]:
        """Of each of so many segments, Σ_k p_k · max |w_k|: no weighted sum of these models is beyond it."""
        kept = self._of.values()
        return [math.fsum(each.weight * each.largest[segment] for each in kept) for segment in range(segments)]

    @property
    def weights(self) -> list[float]:
        return [self._of[learner].weight for learner in self.learners]

    def put(self, learner: str, model: Buffer, weight: float, largest: Sequence[float] = ()) -> None:
        """This is the learner's last model from now on. Raises OSError."""
        self._number += 1
        name = f"{learner}.{self._number:06}"
        digest = xxhash.xxh3_64()
        with (self._directory / name).open("wb") as file:
            for start in range(0, self._nbytes, WRITTEN_BACK_BYTES):
                piece = model[start : min(self._nbytes, start + WRITTEN_BACK_BYTES)]
                file.write(piece.data)
                digest.update(piece.data)
                release(piece, written=False)
                if self._nbytes > WRITTEN_BACK_BYTES:
                    # Dirty pages of a large model could fill a container's memory.
                    file.flush()
                    os.fdatasync(file.fileno())
        self._unsynced.add(name)
        self._of[learner] = Contribution(name, weight, digest.hexdigest(), tuple(largest))

    def model(self, learner: str) -> Buffer:
        """The learner's last model, mapped and not to be written to. Raises OSError or ValueError."""
        return mapped_file(self._directory / self._of[learner].file, self._nbytes)

    def sync(self) -> Buffer:
        """Make everything durable; returns the manifest. Raises OSError."""
        for name in self._unsynced:
            if (path := self._directory / name).exists():
                sync(path)
        sync(self._directory)
        self._unsynced.clear()
        text = json.dumps({learner: asdict(kept) for learner, kept in self._of.items()})
        return np.frombuffer(text.encode(), np.uint8)

    def restore(self, manifest: Buffer) -> None:
        """Go back to what a manifest names. Raises ValueError for one that is none."""
        try:
            entries: Mapping[str, Mapping[str, Any]] = json.loads(manifest.tobytes())
            self._of = {
                learner: Contribution(
                    str(kept["file"]),
                    float(kept["weight"]),
                    str(kept["checksum"]),
                    tuple(map(float, kept["largest"])),
                )
                for learner, kept in entries.items()
            }
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"a manifest of contributions was expected: {error}") from error
        self._number = max((int(kept.file.rpartition(".")[2]) for kept in self._of.values()), default=0)
        self._unsynced.clear()

    def check(self) -> None:
        """Read all files. Raises OSError or ValueError for one that is missing or damaged."""
        for learner, kept in self._of.items():
            model, digest = self.model(learner), xxhash.xxh3_64()
            for start in range(0, model.size, WRITTEN_BACK_BYTES):
                piece = model[start : start + WRITTEN_BACK_BYTES]
                digest.update(piece.data)
                release(piece, written=False)
            if digest.hexdigest() != kept.checksum:
                raise ValueError(f"{kept.file}, the last model of {learner}, is damaged")

    def remove_all_but(self, *manifests: Buffer) -> None:
        """Remove files that neither count now nor are named by a manifest."""
        named = {kept.file for kept in self._of.values()}
        for manifest in manifests:
            named |= {kept["file"] for kept in json.loads(manifest.tobytes()).values()}
        for path in self._directory.iterdir():
            if path.name not in named:
                path.unlink(missing_ok=True)
