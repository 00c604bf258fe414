"""The cluster that a kubeconfig names, and the calls to it. The only import of kubernetes here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlencode

from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException
from urllib3 import Timeout
from urllib3.exceptions import HTTPError

_CHUNK_BYTES = 1 << 20
_CONNECT_SECONDS, _READ_SECONDS = 10, 60
_DISK_SECONDS = 600
"""Until what was sent is on a disk, a large model for example."""

Json = dict[str, Any]


class ClusterError(Exception):
    """What the cluster, or the way to it, does not give; the message says why and what to do."""


class RefusedError(ClusterError):
    """An answer other than success. `by_api_server`: its own, and not of what it was to pass the request on to."""

    def __init__(self, code: int, said: str, by_api_server: bool) -> None:
        super().__init__(said)
        self.code = code
        self.by_api_server = by_api_server


@dataclass(frozen=True)
class Cluster:
    """A connection, and where to look."""

    api: client.ApiClient
    context: str
    namespace: str

    @property
    def place(self) -> str:
        return f"namespace '{self.namespace}' (context '{self.context}')"

    def get(self, path: str, query: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None) -> Any:
        """The decoded JSON answer. Raises RefusedError, or ClusterError when there is none."""
        return self._decoded(self._call("GET", path, headers or {}, query or {}))

    def merge(self, path: str, body: Json) -> Any:
        """JSON merge patch. Raises as `get`."""
        return self._decoded(self._call("PATCH", path, {"Content-Type": "application/merge-patch+json"}, {}, body))

    def create(self, path: str, manifest: Json) -> Any:
        """POST to a collection. Raises as `get`."""
        return self._decoded(self._call("POST", path, {"Content-Type": "application/json"}, {}, manifest))

    def delete(self, path: str, uid: str) -> None:
        """Delete the object if it is the one with this uid. Raises as `get`."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        self._decoded(self._call("DELETE", path, {"Content-Type": "application/json"}, {}, options))

    def send(self, path: str, content: BinaryIO, size: int) -> Any:
        """PUT a file of this size. Raises as `get`."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        return self._decoded(self._call("PUT", path, headers, {}, content))

    def stream(
        self, path: str, query: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Stream:
        """The answer's body in pieces. Raises as `get`."""
        return Stream(self._call("GET", path, headers or {}, query or {}), self)

    def unreachable(self, error: HTTPError) -> ClusterError:
        return ClusterError(f"the cluster of context '{self.context}' cannot be reached: {error}")

    def _decoded(self, response: Any) -> Any:
        try:
            return json.loads(response.read())
        except HTTPError as error:
            raise self.unreachable(error) from error
        except ValueError as error:
            raise ClusterError(f"the cluster of context '{self.context}' answered something else than JSON") from error
        finally:
            response.release_conn()

    def _call(
        self, method: str, path: str, headers: Mapping[str, str], query: Mapping[str, str], body: Any = None
    ) -> Any:
        """By the client's connections and credentials, but not by its calls: those differ from release to release."""
        configuration = self.api.configuration
        authentication = {
            setting["key"]: setting["value"]
            for setting in configuration.auth_settings().values()
            if setting["in"] == "header" and setting["value"]
        }
        try:
            response = self.api.rest_client.pool_manager.request(
                method,
                f"{configuration.host}{path}{'?' if query else ''}{urlencode(query)}",
                headers={"Accept": "application/json, */*", **authentication, **headers},
                body=json.dumps(body).encode() if isinstance(body, dict) else body,
                timeout=_patience(method, query),
                preload_content=False,
                retries=False,
            )
            if response.status >= 400:
                raise _refused(response.status, str(response.reason), response.read())
        except HTTPError as error:
            raise self.unreachable(error) from error
        return response


@dataclass(frozen=True)
class Stream:
    """An answer that is read while it comes; use it in a `with` statement."""

    response: Any
    cluster: Cluster

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.release_conn()

    @property
    def headers(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.response.headers
        return found

    def chunks(self) -> Iterator[bytes]:
        """Raises ClusterError when it breaks off."""
        try:
            yield from self.response.stream(_CHUNK_BYTES)
        except HTTPError as error:
            raise ClusterError(f"the answer broke off on its way: {error}; try again") from error

    def lines(self) -> Iterator[str]:
        """Raises ClusterError when it breaks off."""
        waiting = b""
        try:
            for chunk in self.response.stream(None, decode_content=True):
                *whole, waiting = (waiting + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
        except HTTPError as error:
            raise ClusterError(f"the answer broke off on its way: {error}; try again") from error
        if waiting:
            yield waiting.decode(errors="replace")


def connect(context: str | None, namespace: str | None) -> Cluster:
    """The cluster of a kubeconfig's context; by default the current one and its namespace. Raises ClusterError."""
    try:
        contexts, active = config.list_kube_config_contexts()
        chosen = active if context is None else next((c for c in contexts if c["name"] == context), None)
        if chosen is None:
            names = ", ".join(sorted(c["name"] for c in contexts)) or "none"
            raise ClusterError(f"the kubeconfig has no context '{context}'; it has: {names}")
        api = config.new_client_from_config(context=chosen["name"])
    except ConfigException as error:
        told = str(error).rstrip(". ")
        raise ClusterError(f"no usable kubeconfig: {told}; set KUBECONFIG or choose a --context") from error
    return Cluster(api, chosen["name"], namespace or chosen["context"].get("namespace") or "default")


def _patience(method: str, query: Mapping[str, str]) -> Timeout:
    if method == "PUT":
        # The first of the two is also for each write, which waits for the other end's disk.
        return Timeout(connect=_DISK_SECONDS, read=_DISK_SECONDS)
    return Timeout(connect=_CONNECT_SECONDS, read=None if query.get("follow") == "true" else _READ_SECONDS)


def _refused(code: int, reason: str, text: bytes) -> RefusedError:
    try:
        body = json.loads(text or b"null")
    except ValueError:
        body = None
    if isinstance(body, dict) and body.get("kind") == "Status":
        return RefusedError(code, str(body.get("message") or body.get("reason")), by_api_server=True)
    told = body.get("detail") if isinstance(body, dict) else None
    return RefusedError(code, str(told or f"{code} {reason}"), by_api_server=False)
