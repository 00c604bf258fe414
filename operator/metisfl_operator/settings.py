"""The operator's own settings, read from the environment once, at start-up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PULL_POLICIES = ("Always", "IfNotPresent", "Never")


class SettingsError(ValueError):
    """A setting that is missing or makes no sense."""


@dataclass(frozen=True)
class Settings:
    """What a Federation leaves to the installation."""

    controller_image: str
    learner_image: str
    image_pull_policy: str = "IfNotPresent"
    log_format: str = "json"
    """Of the controller and the learners; the operator's own is an option of `kopf run`."""
    namespaces: tuple[str, ...] = ()
    """Those the operator serves; all of them when empty."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Raises SettingsError, naming the variable."""
        policy = environment.get("METISFL_IMAGE_PULL_POLICY", cls.image_pull_policy)
        if policy not in PULL_POLICIES:
            raise SettingsError(
                f"METISFL_IMAGE_PULL_POLICY is {policy!r}; it must be one of {', '.join(PULL_POLICIES)}"
            )
        log_format = environment.get("METISFL_LOG_FORMAT", cls.log_format)
        if log_format not in ("json", "text"):
            raise SettingsError(f"METISFL_LOG_FORMAT is {log_format!r}; it must be json or text")
        return cls(
            controller_image=_required(environment, "METISFL_CONTROLLER_IMAGE"),
            learner_image=_required(environment, "METISFL_LEARNER_IMAGE"),
            image_pull_policy=policy,
            log_format=log_format,
            namespaces=tuple(part for part in environment.get("METISFL_NAMESPACES", "").split(",") if part),
        )


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "").strip()
    if not value:
        raise SettingsError(f"{name} is not set; it names the image that pods run when a Federation names none")
    return value
