"""A small client of the API server: enough to look after the cluster without starting kubectl twice a second."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from _cluster import pki
from _cluster.errors import ClusterError
from _cluster.home import API_URL, CRD_URL, Home

Object = Mapping[str, Any]

_SECONDS = 10.0
_FIELD_MANAGER = "hack-cluster"


class NotAnsweringError(ClusterError):
    """The API server could not be asked, for now."""


@dataclass(frozen=True)
class Api:
    """One API server, asked as the admin user."""

    server: str
    token: str
    tls: ssl.SSLContext

    @classmethod
    def of(cls, home: Home, server: str = API_URL) -> "Api":
        return cls(server, pki.admin_token(home), ssl.create_default_context(cafile=str(home.pki / "ca.crt")))

    @classmethod
    def of_crd_server(cls, home: Home) -> "Api":
        return cls.of(home, CRD_URL)

    def ready(self) -> bool:
        try:
            return self._send("GET", "/readyz") == b"ok"
        except ClusterError:
            return False

    def get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._send("GET", path))
        return answer

    def items(self, path: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.get(path)["items"]
        return items

    def apply(self, path: str, obj: Object) -> None:
        """Server-side apply: the object at `path` is made or changed to hold these fields."""
        query = f"?fieldManager={_FIELD_MANAGER}&force=true"
        self._send("PATCH", path + query, json.dumps(obj).encode(), "application/apply-patch+yaml")

    def delete(self, path: str, options: Object | None = None) -> None:
        """Delete the object or collection at `path`; one that is gone already is fine."""
        try:
            self._send("DELETE", path, json.dumps(options or {}).encode(), "application/json")
        except ClusterError as error:
            if not isinstance(error.__cause__, urllib.error.HTTPError) or error.__cause__.code != 404:
                raise

    def _send(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> bytes:
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        request = urllib.request.Request(self.server + path, data=body, headers=headers, method=method)
        # No proxy of the environment stands between this process and an address of this machine.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.tls)
        )
        try:
            with opener.open(request, timeout=_SECONDS) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace").strip()
            raise ClusterError(f"{method} {path}: the API server answers {error.code}: {detail}") from error
        except OSError as error:
            raise NotAnsweringError(f"{method} {path}: {self.server} does not answer ({error})") from error
