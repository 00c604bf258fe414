"""The few calls to the API server that reconciling needs, each with a deadline."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import urllib3.exceptions
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient

from metisfl.spec import API_GROUP, API_VERSION, KIND, PLURAL
from metisfl_operator.names import FIELD_MANAGER
from metisfl_operator.resources.metadata import Manifest
from metisfl_operator.served import MOVED, ServedVersions, plurals

CONNECT_SECONDS, READ_SECONDS = 5, 20

# Known beforehand: discovering them would cost start-up time and keep a cache that can go stale.
_COLLECTIONS = {
    KIND: (f"apis/{API_GROUP}/{API_VERSION}", PLURAL),
    "StatefulSet": ("apis/apps/v1", "statefulsets"),
    "PersistentVolumeClaim": ("api/v1", "persistentvolumeclaims"),
    "ConfigMap": ("api/v1", "configmaps"),
    "Service": ("api/v1", "services"),
    "Secret": ("api/v1", "secrets"),
    "Pod": ("api/v1", "pods"),
    "Event": ("api/v1", "events"),
    "NetworkPolicy": ("apis/networking.k8s.io/v1", "networkpolicies"),
    "PodDisruptionBudget": ("apis/policy/v1", "poddisruptionbudgets"),
    "Ingress": ("apis/networking.k8s.io/v1", "ingresses"),
    "Certificate": ("apis/cert-manager.io/v1", "certificates"),
    "TLSRoute": ("apis/gateway.networking.k8s.io/v1", "tlsroutes"),
}


class KubeError(Exception):
    """An answer other than success, in the server's words; `code` is the HTTP status, 0 when there was no answer."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def rejected(self) -> bool:
        """Whether the object itself is the likely cause, and its author should hear of it."""
        # API servers report a field of the wrong form in a server-side apply as an internal error.
        return self.code in (400, 403, 422, 500)


class Kube(Protocol):
    """What reconciling asks of the API server. All methods raise KubeError."""

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None: ...

    def list(self, kind: str, namespace: str, labels: str = "", fields: str = "") -> list[Manifest]: ...

    def apply(self, manifest: Manifest) -> Manifest: ...

    def overwrite(self, manifest: Manifest) -> Manifest: ...

    def apply_status(self, manifest: Manifest) -> Manifest: ...

    def create(self, manifest: Manifest) -> Manifest: ...

    def delete(self, manifest: Manifest) -> None: ...


@dataclass(frozen=True)
class KubeClient:
    """`Kube` by the official client."""

    dynamic: DynamicClient

    @classmethod
    def connect(cls) -> KubeClient:
        """By the pod's service account, or by the kubeconfig where there is none."""
        settings = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=settings)
        except config.ConfigException:
            config.load_kube_config(client_configuration=settings)
        return cls.over(client.ApiClient(settings))

    @classmethod
    def over(cls, api_client: client.ApiClient) -> KubeClient:
        return cls(DynamicClient(api_client, discoverer=lambda *_: None))

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        if not self._serves(kind):
            return None
        try:
            return self._call("get", self._path(kind, namespace, name))
        except KubeError as error:
            if error.code == 404:
                return None
            raise

    def list(self, kind: str, namespace: str, labels: str = "", fields: str = "") -> list[Manifest]:
        """An empty namespace means all of them. Of a kind that the server does not have there are none."""
        if not self._serves(kind):
            return []
        answer = self._call(
            "get", self._path(kind, namespace), label_selector=labels or None, field_selector=fields or None
        )
        items: list[Manifest] = answer["items"]
        return items

    def apply(self, manifest: Manifest) -> Manifest:
        return self._apply(manifest)

    def overwrite(self, manifest: Manifest) -> Manifest:
        """Like `apply`, but lists become exactly those of `manifest`; server-side apply leaves what others added."""
        meta = manifest["metadata"]
        return self._call(
            "patch",
            self._path(manifest["kind"], meta["namespace"], meta["name"]),
            body=self._served(manifest),
            content_type="application/merge-patch+json",
            field_manager=FIELD_MANAGER,
        )

    def apply_status(self, manifest: Manifest) -> Manifest:
        return self._apply(manifest, "status")

    def create(self, manifest: Manifest) -> Manifest:
        return self._call("post", self._path(manifest["kind"], manifest["metadata"]["namespace"]), body=manifest)

    def delete(self, manifest: Manifest) -> None:
        """Delete this very object, not a later one of the same name; nothing happens when it is gone already."""
        meta = manifest["metadata"]
        options = {"preconditions": {"uid": meta["uid"]}, "propagationPolicy": "Background"}
        try:
            self._call("delete", self._path(manifest["kind"], meta["namespace"], meta["name"]), body=options)
        except KubeError as error:
            if error.code not in (404, 409):
                raise

    def _apply(self, manifest: Manifest, *subresource: str) -> Manifest:
        meta = manifest["metadata"]
        return self._call(
            "patch",
            self._path(manifest["kind"], meta["namespace"], meta["name"], *subresource),
            body=self._served(manifest),
            content_type="application/apply-patch+yaml",
            field_manager=FIELD_MANAGER,
            force_conflicts=True,
        )

    @cached_property
    def _versions(self) -> ServedVersions:
        return ServedVersions(self._resources)

    def _resources(self, version: str) -> set[str]:
        try:
            return plurals(self._call("get", f"/apis/{version}"))
        except KubeError as error:
            if error.code != 404:
                raise
            return set()

    def _serves(self, kind: str) -> bool:
        _, plural = _COLLECTIONS[kind]
        return plural not in MOVED or self._versions.of(plural) is not None

    def _version(self, kind: str) -> str:
        """group/version of a kind that moved. Raises KubeError when the server does not have it."""
        version = self._versions.of(_COLLECTIONS[kind][1])
        if version is None:
            raise KubeError(400, f"this cluster has no {kind}: install what brings it ({_COLLECTIONS[kind][0]})")
        return version

    def _served(self, manifest: Manifest) -> Manifest:
        kind = manifest["kind"]
        return {**manifest, "apiVersion": self._version(kind)} if _COLLECTIONS[kind][1] in MOVED else manifest

    def _path(self, kind: str, namespace: str, *rest: str) -> str:
        prefix, plural = _COLLECTIONS[kind]
        if plural in MOVED:
            prefix = f"apis/{self._version(kind)}"
        scope = ("namespaces", namespace) if namespace else ()
        return "/" + "/".join((prefix, *scope, plural, *rest))

    def _call(self, method: str, path: str, **parameters: Any) -> Manifest:
        try:
            answer: Manifest = self.dynamic.request(
                method, path, serializer=_plain, _request_timeout=(CONNECT_SECONDS, READ_SECONDS), **parameters
            )
        except ApiException as error:
            raise KubeError(int(error.status or 0), _words(error)) from error
        except urllib3.exceptions.HTTPError as error:
            raise KubeError(0, f"the API server does not answer: {error}") from error
        return answer


def _plain(_: DynamicClient, data: Manifest) -> Manifest:
    """Answers stay the dictionaries they are; the client would wrap them."""
    return data


def _words(error: ApiException) -> str:
    """The message of the Status object in the answer, or what there is instead."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason or error)
