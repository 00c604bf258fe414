"""The lineage file: of which rounds, contributors and spec each model came to be. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from metisfl import __version__
from metisfl.spec import FederationSpec
from metisfl_controller.rounds.evaluation import Mean
from metisfl_controller.state.records import Outcome, RoundRecord, StoredVersion

LINEAGE_FILE = "lineage.json"


def lineage(
    name: str,
    uid: str,
    spec: FederationSpec,
    versions: Iterable[StoredVersion],
    rounds: Iterable[RoundRecord],
    metrics: Mapping[int, Mapping[str, Mean]],
    outcome: Outcome | None,
    delivered: Iterable[int],
) -> bytes:
    """The file as JSON text. A version that lies beside it has `file`; the published one is named by `published`."""
    there = set(delivered)
    document = {
        "federation": name,
        "uid": uid,
        "controllerVersion": __version__,
        "specSha256": spec_digest(spec),
        "published": outcome.published_version if outcome else None,
        "outcome": outcome and {"state": outcome.state, "reason": outcome.reason, "message": outcome.message},
        "versions": [_version(version, metrics, version.version in there) for version in versions],
        "rounds": [_round(record) for record in rounds],
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def delivered_by(text: bytes | None, uid: str) -> set[int]:
    """The versions that an earlier lineage file of this federation says lie beside it; none when it is not ours."""
    try:
        document = json.loads(text or b"{}")
        ours = document.get("uid") == uid
        return {int(version["version"]) for version in document.get("versions", []) if ours and "file" in version}
    except (ValueError, TypeError, KeyError, AttributeError):
        return set()


def spec_digest(spec: FederationSpec) -> str:
    """SHA-256 of the spec as JSON with sorted keys and defaults filled in."""
    document = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _version(version: StoredVersion, metrics: Mapping[int, Mapping[str, Mean]], there: bool) -> dict[str, Any]:
    means = metrics.get(version.version, {})
    return {
        "version": version.version,
        **({"file": version.file} if there else {}),
        "sha256": version.sha256,
        "bytes": version.bytes,
        "createdAt": _time(version.created_at),
        "metrics": {name: {"value": mean.value, "examples": mean.examples} for name, mean in sorted(means.items())},
    }


def _round(record: RoundRecord) -> dict[str, Any]:
    """Round r made version r of version r − 1 and of what the contributors sent."""
    return {
        "number": record.number,
        "version": record.version,
        "startedAt": _time(record.started_at),
        "endedAt": _time(record.ended_at),
        "attempts": record.attempts,
        "contributors": {learner: asdict(done) for learner, done in sorted(record.contributed.items())},
        "lost": list(record.lost),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
