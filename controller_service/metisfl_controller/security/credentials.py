"""The controller's TLS folder: what gRPC serves with, and the client issuer, both read anew when the files change."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc

from metisfl.logs import ContextLogger
from metisfl.tls.authority import Authority
from metisfl.tls.pem import (
    CA_FILE,
    CERTIFICATE_FILE,
    ISSUER_CERTIFICATE_FILE,
    ISSUER_KEY_FILE,
    KEY_FILE,
    KeyPair,
    PemError,
    read_certificates,
)

T = TypeVar("T")


class CredentialsError(ValueError):
    """The TLS folder cannot be used; the message says what is wrong with it."""


class TlsFolder:
    """Raises CredentialsError at construction. When renewed files cannot be read later, the ones before stay in use."""

    def __init__(self, folder: Path, log: ContextLogger) -> None:
        self._server = _Watched(
            [folder / name for name in (CA_FILE, CERTIFICATE_FILE, KEY_FILE)], _server_configuration, log
        )
        self._issuer = _Watched([folder / name for name in (ISSUER_CERTIFICATE_FILE, ISSUER_KEY_FILE)], _authority, log)

    def server_credentials(self) -> grpc.ServerCredentials:
        """Asks every client for a certificate. gRPC asks for the files' present state at each handshake."""

        def fetch() -> Any:
            return self._server.newest() if self._server.changed() else None

        return grpc.dynamic_ssl_server_credentials(self._server.value, fetch, require_client_authentication=True)

    def issuer(self) -> Authority:
        return self._issuer.newest()


class _Watched(Generic[T]):
    """What `read` makes of the contents of some files."""

    def __init__(self, files: list[Path], read: Callable[..., T], log: ContextLogger) -> None:
        self._files = files
        self._read = read
        self._log = log
        self._seen = self._signature()
        try:
            self.value = read(*(file.read_bytes() for file in files))
        except (OSError, PemError) as error:
            raise CredentialsError(f"TLS files {', '.join(map(str, files))}: {error}") from error

    def changed(self) -> bool:
        return self._signature() != self._seen

    def newest(self) -> T:
        signature = self._signature()
        if signature != self._seen:
            # Not tried again until the files change again.
            self._seen = signature
            try:
                self.value = self._read(*(file.read_bytes() for file in self._files))
                self._log.info("certificates were renewed", extra={"file": str(self._files[0])})
            except (OSError, PemError) as error:
                self._log.error("renewed certificates cannot be used, the old ones stay: %s", error)
        return self.value

    def _signature(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(map(_stat, self._files))


def _stat(file: Path) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(file)  # noqa: PTH116 - in every handshake
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _server_configuration(ca: bytes, certificate: bytes, key: bytes) -> Any:
    server = KeyPair(certificate, key)
    read_certificates(ca)
    leaf = server.authority().certificate
    if datetime.now(UTC) >= leaf.not_valid_after_utc:
        raise PemError(f"the server's certificate expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC")
    return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=ca)


def _authority(certificate: bytes, key: bytes) -> Authority:
    return KeyPair(certificate, key).authority()
