"""A federation's controller, reached through the API server's proxy: its documents and its models."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from metisfl.api import FederationDocument, RoundDocument
from metisfl.api.access import TOKEN_FILE, token_headers
from metisfl.archive import Manifest, verify
from metisfl.cluster.access import Cluster, ClusterError, Json, RefusedError
from metisfl.cluster.federations import federation
from metisfl.cluster.names import controller_name, token_secret
from metisfl.cluster.words import telling
from metisfl.downloads import SHA256_HEADER, save

T = TypeVar("T")


def fetch_model(cluster: Cluster, name: str, version: int | None, target: Path) -> int:
    """Save a model of Federation `name`: the version asked for, else the published or newest. Returns its bytes.

    Raises ClusterError when there is no such federation or its controller has no such model, DownloadError when the
    model arrives damaged, OSError when `target` cannot be written.
    """
    found = federation(cluster, name)
    path = _path(cluster, name, f"v1/models/{'latest' if version is None else version}")
    try:
        stream = cluster.stream(path, headers=_headers(cluster, name))
    except RefusedError as error:
        raise ClusterError(_why_no_model(error, found, cluster, name)) from error
    with stream:
        return save(stream.chunks(), target, stream.headers.get(SHA256_HEADER))


def fetch_archive(cluster: Cluster, name: str, target: Path) -> tuple[Manifest, str]:
    """Save the archive of Federation `name`; returns its manifest and its SHA-256.

    Raises ClusterError when there is no such federation or its controller gives none, ArchiveError when it arrives
    damaged, OSError when `target` cannot be written.
    """
    found = federation(cluster, name)
    try:
        stream = cluster.stream(_path(cluster, name, "v1/archive"), headers=_headers(cluster, name))
    except RefusedError as error:
        raise ClusterError(_why_no_archive(error, found, cluster, name)) from error
    arrived = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with stream:
            save(stream.chunks(), arrived, None)
        verified = verify(arrived)
        arrived.replace(target)
    finally:
        arrived.unlink(missing_ok=True)
    return verified


def progress(cluster: Cluster, name: str) -> FederationDocument:
    """What the controller says. Raises ClusterError when it does not answer."""
    return _read(cluster, name, "v1/federation", TypeAdapter(FederationDocument))


def rounds(cluster: Cluster, name: str, after: int, limit: int) -> list[RoundDocument]:
    """Committed rounds with higher numbers than `after`, oldest first, at most `limit`. Raises as `progress`."""
    query = {"after": str(after), "limit": str(limit)}
    return _read(cluster, name, "v1/rounds", TypeAdapter(list[RoundDocument]), query)


def _read(cluster: Cluster, name: str, path: str, adapter: TypeAdapter[T], query: Mapping[str, str] | None = None) -> T:
    try:
        return adapter.validate_python(cluster.get(_path(cluster, name, path), query, _headers(cluster, name)))
    except RefusedError as error:
        raise ClusterError(_why_no_answer(error, name)) from error
    except ValidationError as error:
        raise ClusterError(f"the controller of '{name}' is of another release than this command: {error}") from error


def _path(cluster: Cluster, name: str, path: str) -> str:
    return f"/api/v1/namespaces/{cluster.namespace}/services/http:{controller_name(name)}:http/proxy/{path}"


def _headers(cluster: Cluster, name: str) -> Mapping[str, str]:
    """Of those who may read the Secret with the controller's token; a controller that wants none needs none."""
    path = f"/api/v1/namespaces/{cluster.namespace}/secrets/{token_secret(name)}"
    try:
        secret = cluster.get(path)
    except RefusedError:
        return {}
    return token_headers(content(secret, TOKEN_FILE))


def content(secret: Json, key: str) -> str:
    """One value of a Secret as text; empty when it is not there or cannot be one."""
    try:
        return base64.b64decode((secret.get("data") or {}).get(key, ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _why_no_answer(error: RefusedError, name: str) -> str:
    if error.code == 401 and not error.by_api_server:
        return f"the controller of '{name}' wants its token: you need the right to get Secret {token_secret(name)}"
    if error.code in (401, 403):
        return f"you may not reach the controller of '{name}' through the API server: {error}"
    return f"the controller of '{name}' does not answer: {error}"


def _why_no_archive(error: RefusedError, found: Mapping[str, Any], cluster: Cluster, name: str) -> str:
    if not error.by_api_server and error.code == 409:
        return f"the controller of '{name}' gives no archive: {error}"
    if not error.by_api_server and error.code == 404:
        return f"the controller of '{name}' is of an older release, which gives no archives"
    if error.by_api_server and error.code in (404, 503):
        return (
            f"the controller of '{name}' does not run ({telling(found)}), and an archive comes from it; what it keeps "
            f"is on the claim that the Federation uses, by default {controller_name(name)}"
        )
    return _why_no_answer(error, name)


def _why_no_model(error: RefusedError, found: Mapping[str, Any], cluster: Cluster, name: str) -> str:
    if error.code in (401, 403):
        return _why_no_answer(error, name)
    if not error.by_api_server and error.code in (404, 422):
        return f"the controller of '{name}' has no such model: {error}"
    state = telling(found)
    if error.code == 404 and state.startswith(("Complete", "Failed")):
        return (
            f"the controller of '{name}' is gone ({state}), as ttlSecondsAfterFinished asks for; its models are on the "
            f"claim {controller_name(name)} in namespace '{cluster.namespace}'"
        )
    return f"the controller of '{name}' is not ready ({state}): {error}; try again once ControllerAvailable is True"
