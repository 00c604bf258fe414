"""The versions that learners may download: the newest, and earlier ones that tasks under way began with.

Earlier versions are asked for seldom: when a download broke, or the controller was restarted. So only the newest
IN_MEMORY are kept as they travel, whatever number of versions tasks refer to; others are read back from their files,
into mapped files, when somebody asks. A download of a version that leaves memory is broken off, and goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Set
from dataclasses import dataclass, field

from metisfl_controller.server.downloads import GlobalModel

IN_MEMORY = 2
"""Versions that are kept as they travel, each as large as an encoded model."""


@dataclass(eq=False)
class Served:
    """`read_back` makes a version of its file; None when it has none. It may raise StateError and OSError."""

    read_back: Callable[[int], Awaitable[GlobalModel | None]]
    _in_memory: dict[int, GlobalModel] = field(default_factory=dict)
    """By version, the newest last."""
    _on_disk: dict[int, asyncio.Future[GlobalModel | None]] = field(default_factory=dict)

    def add(self, model: GlobalModel) -> None:
        """A newer version than all before."""
        self._in_memory[model.version] = model

    def keep(self, versions: Set[int]) -> None:
        """These are in use; the newest is among them."""
        in_use = [version for version in self._in_memory if version in versions]
        for version in self._in_memory.keys() - set(in_use[-IN_MEMORY:]):
            self._in_memory.pop(version).retire()
        for version in self._on_disk.keys() - versions:
            del self._on_disk[version]

    async def of(self, version: int) -> GlobalModel | None:
        """None when the version is not stored. Raises what `read_back` raises."""
        if version in self._in_memory:
            return self._in_memory[version]
        if version not in self._on_disk:
            self._on_disk[version] = asyncio.ensure_future(self.read_back(version))
        reading = self._on_disk[version]
        try:
            model = await asyncio.shield(reading)
        except Exception:
            self._on_disk.pop(version, None)
            raise
        if model is None:
            self._on_disk.pop(version, None)
        return model
