"""What a learner process is told by its environment, read once by `__main__`."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from metisfl.logs import LogFormat

CONNECT_DEADLINE_SECONDS = 300.0


class SettingsError(ValueError):
    """Environment variables that are missing or wrong; `problems` holds one line for each."""

    def __init__(self, problems: list[str], termination_log: Path | None) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)
        self.termination_log = termination_log


@dataclass(frozen=True)
class Settings:
    """Settings of one learner process."""

    controller: str
    """host:port of the controller's gRPC."""

    entrypoint: str
    """module:Class."""

    group: str
    ordinal: int | None
    """Together the learner's identity: the learner group and the place in it, from 0. With TLS the ordinal may be None:
    the controller chooses when the learner enrols."""

    state_dir: Path | None = None
    """Folder for what the learner's class wants to keep between runs, and for what codec TopK has left out."""

    tls_dir: Path | None = None
    """Folder with the federation's root and the group's bootstrap certificate; None: clear text."""

    instance: str = ""
    """UID of the pod, in groups whose pods the operator announces."""

    parameters: Mapping[str, str] = field(default_factory=dict)
    """What this site tells its learner, on top of the federation's parameters."""

    park_after_stop: bool = False
    """Stay alive and idle after STOP, until SIGTERM: a pod that exits would be started again."""

    termination_log: Path | None = None
    """File that gets the one-paragraph explanation of a fatal error."""

    connect_deadline_seconds: float = CONNECT_DEADLINE_SECONDS
    """How long the controller may be out of reach before the learner gives up."""

    log_format: LogFormat = "text"
    log_level: str = "INFO"

    @property
    def learner(self) -> str:
        """The learner's id as far as it is known."""
        return self.group if self.ordinal is None else f"{self.group}-{self.ordinal}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Raises SettingsError with everything that is wrong, not just the first."""
        reader = _Reader(environment)
        settings = cls(
            controller=reader.matching("METISFL_CONTROLLER", r".+:[0-9]{1,5}", "host:port"),
            entrypoint=reader.matching("METISFL_ENTRYPOINT", r"[\w.]+:\w+", "module:Class"),
            group=reader.matching("METISFL_LEARNER_GROUP", r".+", "the name of a learner group"),
            ordinal=reader.ordinal(),
            state_dir=reader.path("METISFL_STATE_DIR"),
            tls_dir=reader.tls_dir(),
            instance=environment.get("METISFL_INSTANCE", ""),
            parameters=reader.parameters(),
            park_after_stop=reader.one_of("METISFL_PARK_AFTER_STOP", "false", "true", "false") == "true",
            termination_log=reader.path("METISFL_TERMINATION_LOG"),
            connect_deadline_seconds=reader.seconds("METISFL_CONNECT_DEADLINE_SECONDS", CONNECT_DEADLINE_SECONDS),
            log_format="json" if reader.one_of("METISFL_LOG_FORMAT", "text", "json", "text") == "json" else "text",
            log_level=reader.one_of("METISFL_LOG_LEVEL", "INFO", *logging.getLevelNamesMapping()),
        )
        if reader.problems:
            raise SettingsError(reader.problems, settings.termination_log)
        return settings


class _Reader:
    """Reads variables and collects what is wrong with them; returns a placeholder in that case."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []

    def matching(self, name: str, pattern: str, expected: str) -> str:
        value = self._environment.get(name, "")
        if not value:
            self.problems.append(f"{name} is not set; it must be {expected}")
        elif not re.fullmatch(pattern, value):
            self.problems.append(f"{name} is '{value}'; it must be {expected}")
        return value

    def tls_dir(self) -> Path | None:
        """METISFL_TLS_DIR, which needs a place for the learner's own key."""
        folder = self.path("METISFL_TLS_DIR")
        if folder is not None and self.path("METISFL_STATE_DIR") is None:
            self.problems.append("METISFL_STATE_DIR is not set; with METISFL_TLS_DIR it keeps the learner's own key")
        return folder

    def ordinal(self) -> int | None:
        """METISFL_LEARNER_ORDINAL, or the number at the end of METISFL_POD_NAME."""
        text = self._environment.get("METISFL_LEARNER_ORDINAL", "")
        if text:
            if text.isdecimal():
                return int(text)
            self.problems.append(f"METISFL_LEARNER_ORDINAL is '{text}'; it must be a number from 0")
            return 0
        pod = self._environment.get("METISFL_POD_NAME", "")
        found = re.search(r"-([0-9]+)$", pod)
        if found:
            return int(found.group(1))
        if not pod and self.path("METISFL_TLS_DIR") is not None:
            return None
        self.problems.append(
            f"METISFL_POD_NAME is '{pod}'; it must end in -<ordinal>"
            if pod
            else "neither METISFL_LEARNER_ORDINAL nor METISFL_POD_NAME is set; one must tell the learner's ordinal"
        )
        return 0

    def parameters(self) -> dict[str, str]:
        """METISFL_PARAMETERS, a JSON object of text."""
        text = self._environment.get("METISFL_PARAMETERS", "") or "{}"
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()):
            return found
        self.problems.append('METISFL_PARAMETERS must be a JSON object of text, such as {"data": "/data"}')
        return {}

    def path(self, name: str) -> Path | None:
        value = self._environment.get(name, "")
        return Path(value) if value else None

    def one_of(self, name: str, default: str, *allowed: str) -> str:
        value = self._environment.get(name, "") or default
        if value not in allowed:
            self.problems.append(f"{name} is '{value}'; it must be one of {', '.join(allowed)}")
        return value

    def seconds(self, name: str, default: float) -> float:
        text = self._environment.get(name, "")
        if not text:
            return default
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or float(text) <= 0:
            self.problems.append(f"{name} is '{text}'; it must be a number of seconds above 0")
            return default
        return float(text)
