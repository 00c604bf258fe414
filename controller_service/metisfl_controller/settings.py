"""The controller's settings, parsed once from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from metisfl.logs import LogFormat
from metisfl_controller.cpus import available_cpus


class SettingsError(ValueError):
    """A setting that is missing or makes no sense; the message names it."""


@dataclass(frozen=True)
class Address:
    host: str
    port: int

    @classmethod
    def parse(cls, name: str, text: str) -> Address:
        host, _, port = text.rpartition(":")
        if not host or not _is_number(port) or int(port) > 65535:
            raise SettingsError(f"{name}={text}: expected host:port, such as 0.0.0.0:50051")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


LEASE_SECONDS = 20
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True)
class Settings:
    """See docs/settings.md for what each environment variable means."""

    federation_file: Path
    state_dir: Path
    grpc_address: Address
    http_address: Address
    threads: int
    lease_seconds: int = LEASE_SECONDS
    checkpoints: bool = True
    adopt_state: bool = False
    partition_plan: Path | None = None
    federation_uid: str | None = None
    endpoint_file: Path | None = None
    tls_dir: Path | None = None
    certificate_seconds: int | None = None
    announced_pods: bool = False
    api_token_file: Path | None = None
    log_format: LogFormat = "json"
    log_level: str = "INFO"

    @classmethod
    def parse(cls, environment: Mapping[str, str]) -> Settings:
        """Raises SettingsError."""

        def path(name: str) -> Path | None:
            return Path(environment[name]) if environment.get(name) else None

        def required(name: str) -> Path:
            found = path(name)
            if found is None:
                raise SettingsError(f"{name} is not set")
            return found

        def flag(name: str, default: bool) -> bool:
            text = environment.get(name) or str(default).lower()
            if text not in ("true", "false"):
                raise SettingsError(f"{name}={text}: expected true or false")
            return text == "true"

        def number(name: str, above: int) -> int | None:
            text = environment.get(name, "")
            if text and not (_is_number(text) and int(text) > above):
                raise SettingsError(f"{name}={text}: expected a number above {above}")
            return int(text) if text else None

        log_format = environment.get("METISFL_LOG_FORMAT", "json")
        if log_format not in ("json", "text"):
            raise SettingsError(f"METISFL_LOG_FORMAT={log_format}: expected json or text")
        log_level = environment.get("METISFL_LOG_LEVEL", "INFO").upper()
        if log_level not in _LEVELS:
            raise SettingsError(f"METISFL_LOG_LEVEL={log_level}: expected one of {', '.join(_LEVELS)}")
        token_file, announced_pods = path("METISFL_API_TOKEN_FILE"), flag("METISFL_ANNOUNCED_PODS", False)
        if announced_pods and token_file is None:
            raise SettingsError(
                "METISFL_ANNOUNCED_PODS is true and METISFL_API_TOKEN_FILE is not set: anybody could announce pods"
            )
        threads, cpus = number("METISFL_THREADS", 0), available_cpus()
        return cls(
            federation_file=required("METISFL_FEDERATION_FILE"),
            state_dir=required("METISFL_STATE_DIR"),
            grpc_address=Address.parse(
                "METISFL_GRPC_ADDRESS", environment.get("METISFL_GRPC_ADDRESS", "0.0.0.0:50051")
            ),
            http_address=Address.parse("METISFL_HTTP_ADDRESS", environment.get("METISFL_HTTP_ADDRESS", "0.0.0.0:8080")),
            threads=min(threads or cpus, cpus),
            lease_seconds=number("METISFL_LEASE_SECONDS", 1) or LEASE_SECONDS,
            checkpoints=flag("METISFL_CHECKPOINTS", True),
            adopt_state=flag("METISFL_ADOPT_STATE", False),
            partition_plan=path("METISFL_PARTITION_PLAN"),
            federation_uid=environment.get("METISFL_FEDERATION_UID") or None,
            endpoint_file=path("METISFL_ENDPOINT_FILE"),
            tls_dir=path("METISFL_TLS_DIR"),
            certificate_seconds=number("METISFL_CERTIFICATE_SECONDS", 0),
            announced_pods=announced_pods,
            api_token_file=token_file,
            log_format=cast(LogFormat, log_format),
            log_level=log_level,
        )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
