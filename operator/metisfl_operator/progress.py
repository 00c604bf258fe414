"""What the controller says about itself, `GET /v1/federation`, and what it is told: `PUT /v1/instances`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import httpx
from pydantic import ValidationError

from metisfl.api import FederationDocument
from metisfl.api.access import token_headers
from metisfl_operator.names import HTTP_PORT

DEADLINE_SECONDS = 4.0


class ProgressError(Exception):
    """The controller did not answer, or not as a controller would."""


class ProgressSource(Protocol):
    """Both raise ProgressError; `token` is what the controller asks for, if it does."""

    def read(self, host: str, token: str | None) -> FederationDocument:
        """The document of the controller at that address."""
        ...

    def announce(self, host: str, token: str | None, instances: Mapping[str, str]) -> None:
        """The learners' pods that there are: UID by learner."""
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

    def read(self, host: str, token: str | None) -> FederationDocument:
        url = self._url(host, "federation")
        answer = self._ask("GET", url, token)
        try:
            return FederationDocument.model_validate_json(answer.content)
        except ValidationError as error:
            raise ProgressError(f"{url}: not a federation document: {error.errors()[0]['msg']}") from error

    def announce(self, host: str, token: str | None, instances: Mapping[str, str]) -> None:
        self._ask("PUT", self._url(host, "instances"), token, dict(instances))

    def _url(self, host: str, what: str) -> str:
        address = f"[{host}]" if ":" in host else host
        return f"http://{address}:{self.port}/v1/{what}"

    def _ask(self, method: str, url: str, token: str | None, document: object = None) -> httpx.Response:
        try:
            return self.client.request(method, url, headers=token_headers(token), json=document).raise_for_status()
        except httpx.HTTPError as error:
            raise ProgressError(f"{url}: {error or type(error).__name__}") from error
