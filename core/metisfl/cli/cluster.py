"""The cluster that a kubeconfig names, as the command line needs it. The only import of kubernetes here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from metisfl.downloads import SHA256_HEADER, save
from metisfl.spec import API_GROUP, API_VERSION, PLURAL

_CHUNK_BYTES = 1 << 20
_CONNECT_SECONDS, _READ_SECONDS = 10, 60


class ClusterError(Exception):
    """What the cluster, or the way to it, does not give; the message says why and what to do."""


@dataclass(frozen=True)
class Cluster:
    """A connection, and where to look."""

    api: client.ApiClient
    context: str
    namespace: str


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
        raise ClusterError(f"no cluster: {error}; set KUBECONFIG or name a context with --context") from error
    # Service proxies have colons and slashes in their path, which some proxies in between refuse when encoded.
    api.configuration.safe_chars_for_path_param = "/:"
    return Cluster(api, chosen["name"], namespace or chosen["context"].get("namespace") or "default")


def fetch_model(cluster: Cluster, name: str, version: int | None, target: Path) -> int:
    """Save a model of Federation `name`: the version asked for, else the published or newest. Returns its bytes.

    Raises ClusterError when there is no such federation or its controller has no such model, DownloadError when the
    model arrives damaged, OSError when `target` cannot be written.
    """
    federation = _federation(cluster, name)
    path = f"v1/models/{'latest' if version is None else version}"
    try:
        response = client.CoreV1Api(cluster.api).connect_get_namespaced_service_proxy_with_path(
            f"http:{name}-controller:http",
            cluster.namespace,
            path,
            _preload_content=False,
            _request_timeout=(_CONNECT_SECONDS, _READ_SECONDS),
        )
    except ApiException as error:
        raise ClusterError(_why_no_model(error, federation, cluster, name)) from error
    except HTTPError as error:
        raise ClusterError(_unreachable(cluster, error)) from error
    try:
        return save(_chunks(response, cluster), target, response.headers.get(SHA256_HEADER))
    finally:
        response.release_conn()


def _chunks(response: Any, cluster: Cluster) -> Iterator[bytes]:
    try:
        yield from response.stream(_CHUNK_BYTES)
    except HTTPError as error:
        raise ClusterError(f"the model broke off on its way: {error}; try again") from error


def _federation(cluster: Cluster, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = client.CustomObjectsApi(cluster.api).get_namespaced_custom_object(
            API_GROUP,
            API_VERSION,
            cluster.namespace,
            PLURAL,
            name,
            _request_timeout=(_CONNECT_SECONDS, _READ_SECONDS),
        )
    except ApiException as error:
        where = f"namespace '{cluster.namespace}' (context '{cluster.context}')"
        if error.status == 404 and _status(error) is None:
            raise ClusterError(f"context '{cluster.context}' knows no Federations: MetisFL is not installed") from error
        if error.status == 404:
            raise ClusterError(f"there is no Federation '{name}' in {where}; name another with -n") from error
        raise ClusterError(f"Federation '{name}' in {where} cannot be read: {_said(error)}") from error
    except HTTPError as error:
        raise ClusterError(_unreachable(cluster, error)) from error
    return found


def _why_no_model(error: ApiException, federation: dict[str, Any], cluster: Cluster, name: str) -> str:
    said = _said(error)
    if error.status in (401, 403):
        return f"you may not reach the controller of '{name}' through the API server: {said}"
    if _status(error) is None and error.status in (404, 422):
        return f"the controller of '{name}' has no such model: {said}"
    state = _state(federation)
    if error.status == 404 and state.startswith(("Complete", "Failed")):
        return (
            f"the controller of '{name}' is gone ({state}), as ttlSecondsAfterFinished asks for; its models are on the "
            f"claim {name}-controller in namespace '{cluster.namespace}'"
        )
    return f"the controller of '{name}' is not ready ({state}): {said}; try again once ControllerAvailable is True"


def _state(federation: dict[str, Any]) -> str:
    """The condition that says most, as `Type: reason: message`."""
    conditions = {entry.get("type"): entry for entry in federation.get("status", {}).get("conditions", [])}
    for kind, telling in (
        ("Failed", "True"),
        ("Complete", "True"),
        ("Suspended", "True"),
        ("ControllerAvailable", "False"),
    ):
        entry = conditions.get(kind)
        if entry and entry.get("status") == telling:
            label = kind if telling == "True" else f"{kind} is False"
            return ": ".join(filter(None, [label, entry.get("reason"), entry.get("message")]))
    return "no status yet: is the operator running?" if not conditions else "starting"


def _status(error: ApiException) -> dict[str, Any] | None:
    """The API server's own Status object; None when something behind or before it answered."""
    try:
        body = json.loads(error.body or "")
    except ValueError:
        return None
    return body if isinstance(body, dict) and body.get("kind") == "Status" else None


def _said(error: ApiException) -> str:
    status = _status(error)
    if status:
        return str(status.get("message") or status.get("reason"))
    try:
        return str(json.loads(error.body or "")["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"


def _unreachable(cluster: Cluster, error: HTTPError) -> str:
    return f"the cluster of context '{cluster.context}' cannot be reached: {error}"
