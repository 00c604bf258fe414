"""The operator's own settings, read from the environment once, at start-up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PULL_POLICIES = ("Always", "IfNotPresent", "Never")


class SettingsError(ValueError):
    """A setting that is missing or makes no sense."""


@dataclass(frozen=True)
class NetworkSettings:
    """What NetworkPolicies allow beside what every federation needs, in Kubernetes' own words."""

    http_from: tuple[dict[str, Any], ...] = ()
    """Peers that may reach controllers' REST side and metrics, such as Prometheus; the operator always may."""
    controller_egress: tuple[dict[str, Any], ...] = ()
    """Rules; DNS is always allowed."""
    learner_egress: tuple[dict[str, Any], ...] | None = None
    """Rules; DNS and the controller's gRPC port are always allowed. None: learners may connect to anywhere."""

    @classmethod
    def parse(cls, text: str) -> NetworkSettings | None:
        """From JSON such as {"httpFrom": […]}; None from an empty text. Raises SettingsError."""
        if not text.strip():
            return None
        try:
            found = json.loads(text)
            parts = {key: tuple(value) for key, value in found.items()}
        except (ValueError, AttributeError, TypeError) as error:
            raise SettingsError(f"METISFL_NETWORK_POLICIES is not a JSON object of lists: {error}") from error
        known = {"httpFrom", "controllerEgress", "learnerEgress"}
        if not parts.keys() <= known or not all(isinstance(entry, dict) for part in parts.values() for entry in part):
            raise SettingsError(f"METISFL_NETWORK_POLICIES may hold {', '.join(sorted(known))}, each a list of objects")
        return cls(parts.get("httpFrom", ()), parts.get("controllerEgress", ()), parts.get("learnerEgress"))


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
    metrics_port: int = 0
    """Where the operator's own metrics are served; 0: nowhere."""
    network: NetworkSettings | None = None
    """None: federations get no NetworkPolicies."""

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
            metrics_port=_port(environment.get("METISFL_METRICS_PORT") or "0"),
            network=NetworkSettings.parse(environment.get("METISFL_NETWORK_POLICIES", "")),
            namespaces=tuple(part for part in environment.get("METISFL_NAMESPACES", "").split(",") if part),
        )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise SettingsError(f"METISFL_METRICS_PORT is {text!r}; it must be a port, or 0 for none")
    return int(text)


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "").strip()
    if not value:
        raise SettingsError(f"{name} is not set; it names the image that pods run when a Federation names none")
    return value
