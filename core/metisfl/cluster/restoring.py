"""A volume claim that is made of an archive: a pod that lives for as long as that takes unpacks it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from metisfl.archive import Manifest
from metisfl.cluster.access import Cluster, ClusterError, Json, RefusedError
from metisfl.cluster.names import PLAN_ANNOTATION

_PORT = 8080
_USER = 10001
_MOUNT = "/var/lib/metisfl"
_POLL_SECONDS = 1.0
_POD_SECONDS = 6 * 3600
"""A pod whose command was killed ends by itself."""
_GONE = (404, 409)
"""Answers to a DELETE: there is none of that name, or another than the one that was meant."""
_LABELS = {"app.kubernetes.io/name": "metisfl-restore", "app.kubernetes.io/managed-by": "metisfl"}
_RUN_LABEL = "metisfl.dev/restore"
"""Tells what this run made from what others made under the same name."""
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
}


@dataclass(frozen=True)
class Archive:
    """A file that has been verified."""

    path: Path
    bytes: int
    sha256: str
    manifest: Manifest


@dataclass(frozen=True)
class Claim:
    """A PersistentVolumeClaim to make. `size` is a Kubernetes quantity."""

    name: str
    size: str
    storage_class: str | None = None


def restore(cluster: Cluster, archive: Archive, claim: Claim, image: str, seconds: float) -> str | None:
    """Make the claim and unpack the archive on its volume; when that fails there is no claim, as before.

    `seconds`: for the pod to get ready. Returns what is left to do by hand, if anything. Raises ClusterError, OSError
    when the archive cannot be read.
    """
    volume, pod = claim_manifest(claim, archive.manifest), pod_manifest(claim, archive, image)
    name = pod["metadata"]["name"]
    path = f"{_path(cluster, 'pods')}/{name}"
    with (
        _made(cluster, "persistentvolumeclaims", volume),
        _made(cluster, "pods", pod) as uid,
        archive.path.open("rb") as file,
    ):
        _until_ready(cluster, path, seconds)
        try:
            cluster.send(f"{path}:{_PORT}/proxy/archive", file, archive.bytes)
        except RefusedError as error:
            raise ClusterError(f"the archive did not arrive: {error}") from error
    try:
        cluster.delete(path, uid)
    except ClusterError as error:
        if not isinstance(error, RefusedError) or error.code not in _GONE:
            return f"pod '{name}' could not be deleted: {error}; kubectl delete pod {name} -n {cluster.namespace}"
    return None


def claim_manifest(claim: Claim, manifest: Manifest) -> Json:
    spec: Json = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": claim.size}}}
    if claim.storage_class is not None:
        spec["storageClassName"] = claim.storage_class
    annotations = {PLAN_ANNOTATION: manifest.plan.model_dump_json()}
    meta = {"name": claim.name, "labels": _LABELS, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}


def pod_manifest(claim: Claim, archive: Archive, image: str) -> Json:
    """By Pod Security level restricted, as the federation's own pods are, and with the same user."""
    command = ["python", "-m", "metisfl.archive.receiver", "--directory", _MOUNT, "--port", str(_PORT)]
    container = {
        "name": "restore",
        "image": image,
        "command": [*command, "--bytes", str(archive.bytes), "--sha256", archive.sha256],
        "securityContext": _RESTRICTED,
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "state", "mountPath": _MOUNT}],
        "readinessProbe": {"httpGet": {"path": "/", "port": _PORT}, "periodSeconds": 1},
    }
    security = {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{claim.name}-restore", "labels": _LABELS},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _POD_SECONDS,
            "terminationGracePeriodSeconds": 5,
            "securityContext": security,
            "containers": [container],
            "volumes": [{"name": "state", "persistentVolumeClaim": {"claimName": claim.name}}],
        },
    }


@contextmanager
def _made(cluster: Cluster, kind: str, manifest: Json) -> Iterator[str]:
    """The uid of an object that is deleted again when something goes wrong. Raises ClusterError."""
    name, run, uid = manifest["metadata"]["name"], uuid4().hex, ""
    path = f"{_path(cluster, kind)}/{name}"
    labels = {**manifest["metadata"]["labels"], _RUN_LABEL: run}
    try:
        uid = _create(cluster, kind, {**manifest, "metadata": {**manifest["metadata"], "labels": labels}})
        yield uid
    except BaseException:
        # Also when there was no answer: it may have been made. Whatever becomes of this, what went wrong is what there
        # is to tell.
        with suppress(ClusterError):
            if ours := uid or _uid_of(cluster, path, run):
                cluster.delete(path, ours)
        raise


def _until_ready(cluster: Cluster, path: str, seconds: float) -> None:
    pod, deadline = path.rpartition("/")[2], time.monotonic() + seconds
    while True:
        found: Json = cluster.get(path)
        conditions = {c["type"]: c for c in found.get("status", {}).get("conditions", [])}
        if conditions.get("Ready", {}).get("status") == "True":
            return
        if found.get("status", {}).get("phase") in ("Failed", "Succeeded"):
            raise ClusterError(f"pod '{pod}' ended: {_standing(found)}")
        if time.monotonic() > deadline:
            raise ClusterError(f"pod '{pod}' was not ready within {seconds:g} s: {_standing(found)}")
        time.sleep(_POLL_SECONDS)


def _standing(pod: Json) -> str:
    """What keeps a pod from getting ready, in Kubernetes' words."""
    status = pod.get("status", {})
    for container in status.get("containerStatuses", []):
        for state in container.get("state", {}).values():
            if told := ": ".join(filter(None, (state.get("reason"), state.get("message")))):
                return told
    for condition in status.get("conditions", []):
        if condition.get("status") == "False" and condition.get("message"):
            return str(condition["message"])
    return str(status.get("message") or status.get("phase") or "no node has taken it")


def _create(cluster: Cluster, kind: str, manifest: Json) -> str:
    """The uid of a new object. Raises ClusterError."""
    try:
        return str(cluster.create(_path(cluster, kind), manifest)["metadata"]["uid"])
    except RefusedError as error:
        hint = "; choose another name with --claim" if error.code == 409 else ""
        name = manifest["metadata"]["name"]
        raise ClusterError(f"{manifest['kind']} '{name}' cannot be made in {cluster.place}: {error}{hint}") from error


def _uid_of(cluster: Cluster, path: str, run: str) -> str | None:
    """Of an object that this run made. Raises ClusterError."""
    meta = cluster.get(path).get("metadata", {})
    return str(meta["uid"]) if meta.get("labels", {}).get(_RUN_LABEL) == run else None


def _path(cluster: Cluster, kind: str) -> str:
    return f"/api/v1/namespaces/{cluster.namespace}/{kind}"
