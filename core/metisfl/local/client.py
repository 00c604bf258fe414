"""Reads the REST side of a controller on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import TypeAdapter

from metisfl.api import FederationDocument, ModelDocument, RoundDocument
from metisfl.api.access import token_headers
from metisfl.downloads import SHA256_HEADER, save

T = TypeVar("T")

_TIMEOUT_SECONDS = 5.0
_CHUNK_BYTES = 1 << 20


class UnreachableError(Exception):
    """The controller did not answer, or not with what was asked for."""


class ControllerClient:
    """Context manager around one connection to `address`, host:port; `token` is what its REST side asks for."""

    def __init__(self, address: str, token: str | None = None) -> None:
        # Loopback: whatever proxy the environment names is not meant.
        self._http = httpx.Client(
            base_url=f"http://{address}", headers=token_headers(token), timeout=_TIMEOUT_SECONDS, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def federation(self) -> FederationDocument:
        """Raises UnreachableError, as every method here."""
        return self._read("/v1/federation", TypeAdapter(FederationDocument))

    def rounds(self, after: int, limit: int) -> list[RoundDocument]:
        """Those with higher numbers than `after`, oldest first, at most `limit`."""
        return self._read("/v1/rounds", TypeAdapter(list[RoundDocument]), {"after": after, "limit": limit})

    def models(self) -> list[ModelDocument]:
        return self._read("/v1/models", TypeAdapter(list[ModelDocument]))

    def save_latest_model(self, target: Path) -> None:
        """The published model, else the newest. Also raises DownloadError and OSError."""
        try:
            with self._http.stream("GET", "/v1/models/latest") as response:
                response.raise_for_status()
                save(response.iter_bytes(_CHUNK_BYTES), target, response.headers.get(SHA256_HEADER))
        except httpx.HTTPError as error:
            raise UnreachableError(f"the model could not be fetched: {error}") from error

    def _read(self, path: str, adapter: TypeAdapter[T], query: Mapping[str, int] | None = None) -> T:
        try:
            response = self._http.get(path, params=query)
            response.raise_for_status()
            return adapter.validate_json(response.content)
        except (httpx.HTTPError, ValueError) as error:
            raise UnreachableError(f"GET {path}: {error}") from error
