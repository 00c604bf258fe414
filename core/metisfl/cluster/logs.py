"""What controller and learners write."""

from __future__ import annotations

import json
from collections.abc import Iterator

from metisfl.cluster.access import Cluster, ClusterError, RefusedError
from metisfl.cluster.names import controller_name

# Of a JSON log line: told first, or without its name.
_HEAD = ("time", "level", "logger", "message", "federation")


def pod_name(federation: str, learner: str | None) -> str:
    """The pod of a learner, <group>-<ordinal>, or of the controller."""
    return f"{controller_name(federation)}-0" if learner is None else f"{federation}-{learner}"


def read_log(cluster: Cluster, pod: str, follow: bool, tail: int, previous: bool) -> Iterator[str]:
    """Lines as they were written. Raises ClusterError."""
    query = {"follow": str(follow).lower(), "tailLines": str(tail), "previous": str(previous).lower()}
    try:
        stream = cluster.stream(f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}/log", query)
    except RefusedError as error:
        if error.code == 404:
            raise ClusterError(
                f"there is no pod '{pod}' in {cluster.place}: it has not been made yet or is gone; `metisfl describe` "
                "says more. Learners of external groups write their logs at their sites"
            ) from error
        raise ClusterError(f"the log of pod '{pod}' in {cluster.place} cannot be read: {error}") from error
    with stream:
        yield from stream.lines()


def readable(line: str) -> str:
    """A JSON log line as `time LEVEL message key=value …`; anything else as it is."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    if not isinstance(record, dict) or "message" not in record:
        return line
    more = [f"{key}={value}" for key, value in record.items() if key not in _HEAD and value not in ("", None)]
    return " ".join(filter(None, [str(record.get("time", "")), record.get("level", ""), record["message"], *more]))
