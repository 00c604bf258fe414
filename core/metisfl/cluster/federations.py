"""Federation objects, and what belongs to them, as the API server tells."""

from __future__ import annotations

from metisfl.cluster.access import Cluster, ClusterError, Json, RefusedError
from metisfl.cluster.names import LABEL_FEDERATION
from metisfl.spec import API_GROUP, API_VERSION, PLURAL

_GROUP = f"/apis/{API_GROUP}/{API_VERSION}"


def federation(cluster: Cluster, name: str) -> Json:
    """Raises ClusterError, which tells a name that is not there from a cluster without MetisFL."""
    try:
        found: Json = cluster.get(_path(cluster, name))
    except RefusedError as error:
        raise _explained(error, cluster, name) from error
    return found


def federations(cluster: Cluster, everywhere: bool = False) -> list[Json]:
    """Of the namespace, or of all namespaces. Raises ClusterError."""
    try:
        items: list[Json] = cluster.get(f"{_GROUP}/{PLURAL}" if everywhere else _path(cluster))["items"]
    except RefusedError as error:
        if error.code == 404:
            raise _not_installed(cluster) from error
        where = "all namespaces" if everywhere else cluster.place
        raise ClusterError(f"Federations in {where} cannot be listed: {error}") from error
    return items


def suspend(cluster: Cluster, name: str, suspended: bool) -> bool:
    """Set spec.suspend; whether that changed anything. Raises ClusterError."""
    if federation(cluster, name)["spec"].get("suspend", False) is suspended:
        return False
    try:
        cluster.merge(_path(cluster, name), {"spec": {"suspend": suspended}})
    except RefusedError as error:
        raise ClusterError(f"Federation '{name}' in {cluster.place} cannot be changed: {error}") from error
    return True


def pods(cluster: Cluster, name: str) -> list[Json]:
    """A federation's pods. Raises RefusedError or ClusterError."""
    path = f"/api/v1/namespaces/{cluster.namespace}/pods"
    items: list[Json] = cluster.get(path, {"labelSelector": f"{LABEL_FEDERATION}={name}"})["items"]
    return sorted(items, key=lambda pod: str(pod["metadata"]["name"]))


def events(cluster: Cluster, name: str) -> list[Json]:
    """About the Federation and whatever is named after it, oldest first. Raises RefusedError or ClusterError."""
    items: list[Json] = cluster.get(f"/api/v1/namespaces/{cluster.namespace}/events")["items"]
    about = [event for event in items if _belongs(event.get("involvedObject", {}), name)]
    return sorted(about, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))


def _belongs(subject: Json, name: str) -> bool:
    called = str(subject.get("name", ""))
    return called == name or (subject.get("kind") != "Federation" and called.startswith(f"{name}-"))


def _path(cluster: Cluster, name: str | None = None) -> str:
    collection = f"{_GROUP}/namespaces/{cluster.namespace}/{PLURAL}"
    return collection if name is None else f"{collection}/{name}"


def _explained(error: RefusedError, cluster: Cluster, name: str) -> ClusterError:
    if error.code == 404 and not error.by_api_server:
        return _not_installed(cluster)
    if error.code == 404:
        return ClusterError(f"there is no Federation '{name}' in {cluster.place}; name another with -n")
    return ClusterError(f"Federation '{name}' in {cluster.place} cannot be read: {error}")


def _not_installed(cluster: Cluster) -> ClusterError:
    return ClusterError(
        f"context '{cluster.context}' knows no Federations: MetisFL is not installed there (see `metisfl install`)"
    )
