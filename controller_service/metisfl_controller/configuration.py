"""The files that say what the controller is to do, and that may change while it runs.

In a cluster they are a mounted ConfigMap, which a kubelet brings up to date within a minute or so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from metisfl.api.configuration import configuration_digest
from metisfl.logs import ContextLogger
from metisfl.spec import Federation, SpecError, load_federation
from metisfl.spec.rules import changed_for_good
from metisfl_controller.partitions import PartitionPlan
from metisfl_controller.settings import SettingsError

POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Configuration:
    """A Federation, who takes which share of the data, and the digest of the files that say so."""

    federation: Federation
    plan: PartitionPlan
    digest: str


@dataclass(frozen=True)
class ConfigurationFiles:
    """`plan` is None where the operator does not hand out shares: they then follow from the federation."""

    federation: Path
    plan: Path | None = None

    def digest(self) -> str:
        """Raises OSError."""
        return configuration_digest(
            self.federation.read_text(encoding="utf-8"),
            "" if self.plan is None else self.plan.read_text(encoding="utf-8"),
        )

    def read(self) -> Configuration:
        """Raises SettingsError for a file that cannot be read, SpecError for a Federation that is not valid."""
        try:
            digest = self.digest()
            federation = load_federation(self.federation)
        except OSError as error:
            raise SettingsError(f"METISFL_FEDERATION_FILE={self.federation}: {error.strerror}") from error
        return Configuration(federation, self._plan(federation), digest)

    def _plan(self, federation: Federation) -> PartitionPlan:
        if self.plan is None:
            return PartitionPlan.of(federation.spec)
        try:
            return PartitionPlan.model_validate_json(self.plan.read_bytes())
        except (OSError, ValueError) as error:
            raise SettingsError(f"METISFL_PARTITION_PLAN={self.plan}: {error}") from error


async def follow(
    files: ConfigurationFiles,
    present: Configuration,
    amend: Callable[[Configuration], None],
    log: ContextLogger,
    poll_seconds: float = POLL_SECONDS,
) -> None:
    """Until cancelled: hand over every configuration that differs from the one before.

    One that cannot be is told once, and the present one stays in force.
    """
    seen = present.digest
    while True:
        await asyncio.sleep(poll_seconds)
        try:
            if (digest := await asyncio.to_thread(files.digest)) == seen:
                continue
            seen = digest
            found = await asyncio.to_thread(files.read)
            if fixed := changed_for_good(present.federation, found.federation):
                raise SpecError(fixed)
        except (OSError, SettingsError, SpecError) as error:
            log.error("the changed configuration is not used: %s", error)
            continue
        present = found
        log.info("the configuration has changed", extra={"configuration": found.digest})
        amend(found)
