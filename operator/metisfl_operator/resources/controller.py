"""The controller's StatefulSet: one pod, so that no two ever write the same volume."""

from __future__ import annotations

from collections.abc import Mapping

from metisfl.api.access import TOKEN_FILE
from metisfl.spec import API_GROUP, Federation
from metisfl.tls.pem import CA_FILE, CERTIFICATE_FILE, ISSUER_CERTIFICATE_FILE, ISSUER_KEY_FILE, KEY_FILE
from metisfl_operator import names
from metisfl_operator.resources import pod
from metisfl_operator.resources.claim import claim_name
from metisfl_operator.resources.metadata import Manifest, Owner, digest, metadata
from metisfl_operator.settings import Settings

CONFIG_ANNOTATION = f"{API_GROUP}/config"


def controller_set(owner: Owner, federation: Federation, settings: Settings, replicas: int) -> Manifest:
    """The pod is replaced when something changes that its process reads once; of the rest it reads the file again."""
    name = names.controller_name(owner.name)
    labels = names.labels(owner.name, names.CONTROLLER)
    selector = names.selector_labels(owner.name, names.CONTROLLER)
    spec = federation.spec
    read_once = [spec.controller.memory_budget, spec.security.tls.model_dump(mode="json")]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(owner, name, labels),
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            # With OrderedReady a pod that never became ready is not replaced when its cause is mended.
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": selector},
            "template": pod.template(
                spec.controller,
                labels,
                {CONFIG_ANNOTATION: digest(read_once)},
                pod.pod_spec(
                    _container(owner, federation, settings),
                    [
                        {
                            "name": pod.STATE_VOLUME,
                            "persistentVolumeClaim": {"claimName": claim_name(owner.name, federation)},
                        },
                        {"name": pod.CONFIG_VOLUME, "configMap": {"name": name}},
                        _access(owner, federation),
                        pod.scratch(),
                        *spec.controller.volumes,
                    ],
                    grace_seconds=60,
                ),
                selector,
            ),
        },
    }


def _container(owner: Owner, federation: Federation, settings: Settings) -> Manifest:
    spec = federation.spec.controller
    return pod.container(
        names.CONTROLLER,
        spec.image or settings.controller_image,
        settings.image_pull_policy,
        command=["python", "-m", "metisfl_controller"],
        env=pod.merged_env(_environment(owner, federation, settings), spec),
        **_variables_from(federation),
        ports=[
            {"name": "grpc", "containerPort": names.GRPC_PORT, "protocol": "TCP"},
            {"name": "http", "containerPort": names.HTTP_PORT, "protocol": "TCP"},
        ],
        resources=pod.resources(spec.resources),
        volumeMounts=[
            pod.mount(pod.STATE_VOLUME, pod.STATE_DIRECTORY),
            pod.mount(pod.CONFIG_VOLUME, pod.CONFIG_DIRECTORY, read_only=True),
            pod.mount(pod.ACCESS_VOLUME, pod.ACCESS_DIRECTORY, read_only=True),
            pod.mount(pod.SCRATCH_VOLUME, pod.SCRATCH_DIRECTORY),
            *spec.volume_mounts,
        ],
        # Kernels are compiled before the first answer, which takes its time on a busy node.
        startupProbe=_probe("/healthz", period=5, failures=60),
        livenessProbe=_probe("/healthz", period=20, failures=6),
        readinessProbe=_probe("/readyz", period=5, failures=3),
    )


def _environment(owner: Owner, federation: Federation, settings: Settings) -> list[Manifest]:
    spec = federation.spec.controller
    return pod.env(
        METISFL_FEDERATION_FILE=f"{pod.CONFIG_DIRECTORY}/{names.CONFIG_FILE}",
        METISFL_PARTITION_PLAN=f"{pod.CONFIG_DIRECTORY}/{names.PLAN_FILE}",
        METISFL_FEDERATION_UID=owner.uid,
        METISFL_STATE_DIR=pod.STATE_DIRECTORY,
        METISFL_ADOPT_STATE="true" if spec.storage.existing_claim else None,
        METISFL_GRPC_ADDRESS=f"0.0.0.0:{names.GRPC_PORT}",
        METISFL_HTTP_ADDRESS=f"0.0.0.0:{names.HTTP_PORT}",
        METISFL_API_TOKEN_FILE=f"{pod.ACCESS_DIRECTORY}/{TOKEN_FILE}",
        METISFL_TLS_DIR=pod.ACCESS_DIRECTORY if federation.spec.security.tls.enabled else None,
        METISFL_ANNOUNCED_PODS="true" if federation.spec.security.tls.enabled else None,
        METISFL_LOG_FORMAT=settings.log_format,
        # Compiled kernels outlive the pod, so that a controller that was moved or killed is back in seconds.
        NUMBA_CACHE_DIR=f"{pod.STATE_DIRECTORY}/numba",
        METISFL_THREADS=None if spec.threads is None else str(spec.threads),
    )


def _access(owner: Owner, federation: Federation) -> Manifest:
    """Token and certificates in one folder, which the kubelet keeps up to date."""
    sources = [_keys(names.token_secret(owner.name), {TOKEN_FILE: TOKEN_FILE})]
    tls = federation.spec.security.tls
    if tls.enabled:
        # The root that clients' certificates lead to is the issuer's; learners know the server's.
        issuer = {CA_FILE: CA_FILE, CERTIFICATE_FILE: ISSUER_CERTIFICATE_FILE, KEY_FILE: ISSUER_KEY_FILE}
        server = {CERTIFICATE_FILE: CERTIFICATE_FILE, KEY_FILE: KEY_FILE}
        sources += [
            _keys(names.server_secret(owner.name, tls), server),
            _keys(names.issuer_secret(owner.name, tls), issuer),
        ]
    return {"name": pod.ACCESS_VOLUME, "projected": {"defaultMode": pod.SECRET_MODE, "sources": sources}}


def _keys(secret: str, paths: Mapping[str, str]) -> Manifest:
    items = [{"key": key, "path": path} for key, path in paths.items()]
    return {"secret": {"name": secret, "items": items}}


def _variables_from(federation: Federation) -> Manifest:
    """Of these the last source of a variable counts; `env` wins over all of them."""
    sources = list(federation.spec.controller.env_from)
    output = federation.spec.output
    if output is not None and output.secret_ref is not None:
        sources.append({"secretRef": {"name": output.secret_ref.name}})
    return {"envFrom": sources} if sources else {}


def _probe(path: str, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
