"""What the controller says about itself: `GET /v1/federation`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import httpx
from pydantic import ValidationError

from metisfl.api import FederationDocument
from metisfl_operator.names import HTTP_PORT

DEADLINE_SECONDS = 4.0


class ProgressError(Exception):
    """The controller did not answer, or not as a controller would."""


class ProgressSource(Protocol):
    def read(self, host: str) -> FederationDocument:
        """The document of the controller at that address. Raises ProgressError."""
        ...


@dataclass(frozen=True)
class HttpProgress:
    """Asks over HTTP, at an address rather than a name, so that it also works where cluster DNS does not reach."""

    client: httpx.Client
    port: int = HTTP_PORT

    @classmethod
    def create(cls) -> HttpProgress:
        # A proxy of the environment is for the outside world; controllers are inside. A connection that was kept would
        # fail once for each controller that was restarted.
        limits = httpx.Limits(max_keepalive_connections=0)
        return cls(httpx.Client(timeout=DEADLINE_SECONDS, trust_env=False, limits=limits))

    def read(self, host: str) -> FederationDocument:
        address = f"[{host}]" if ":" in host else host
        url = f"http://{address}:{self.port}/v1/federation"
        try:
            answer = self.client.get(url).raise_for_status()
            return FederationDocument.model_validate_json(answer.content)
        except httpx.HTTPError as error:
            raise ProgressError(f"{url}: {error or type(error).__name__}") from error
        except ValidationError as error:
            raise ProgressError(f"{url}: not a federation document: {error.errors()[0]['msg']}") from error
