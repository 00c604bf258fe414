"""The StatefulSet of one learner group: learners have stable names, and so stable shares of the data."""

from __future__ import annotations

from metisfl.spec import Federation, LearnerGroup
from metisfl.spec.groups import LearnerStorage
from metisfl_operator import names
from metisfl_operator.resources import pod
from metisfl_operator.resources.metadata import Manifest, Owner, metadata
from metisfl_operator.resources.volume import claim_of, claim_spec
from metisfl_operator.settings import Settings

_TERMINATION_LOG = "/dev/termination-log"


def learner_set(
    owner: Owner, federation: Federation, group: LearnerGroup, settings: Settings, replicas: int
) -> Manifest:
    """All pods start at once; they dial out to the controller, so nothing needs to reach them."""
    labels = names.labels(owner.name, names.LEARNER, group.name)
    source = federation.spec.learner.source_ref
    volumes = [pod.scratch(), *group.volumes]
    if group.storage is None:
        volumes.insert(0, {"name": pod.STATE_VOLUME, "emptyDir": {}})
    if federation.spec.security.tls.enabled:
        volumes.append(
            {
                "name": pod.ACCESS_VOLUME,
                "secret": {
                    "secretName": names.bootstrap_secret(owner.name, group.name),
                    "defaultMode": pod.SECRET_MODE,
                },
            }
        )
    if source is not None:
        volumes.append({"name": pod.SOURCE_VOLUME, "configMap": {"name": source.name}})
    selector = names.selector_labels(owner.name, names.LEARNER, group.name)
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(owner, names.learners_name(owner.name, group.name), labels),
        "spec": {
            "replicas": replicas,
            "serviceName": names.controller_name(owner.name),
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": selector},
            "template": pod.template(
                group,
                labels,
                {},
                pod.pod_spec(_container(owner, federation, group, settings), volumes, grace_seconds=30),
                selector,
            ),
            **({"volumeClaimTemplates": [_claim_template(group.storage)]} if group.storage else {}),
        },
    }


def learner_claims(owner: Owner, group: LearnerGroup, replicas: int) -> list[Manifest]:
    """The learners' volumes, by the names under which their StatefulSet looks for them.

    One that it had to make itself would outlive the Federation: it is not applied before they are there.
    """
    if group.storage is None:
        return []
    workload = names.learners_name(owner.name, group.name)
    labels = names.labels(owner.name, names.LEARNER, group.name)
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": metadata(owner, claim_of(pod.STATE_VOLUME, workload, ordinal), labels),
            "spec": _claim_spec(group.storage),
        }
        for ordinal in range(replicas)
    ]


def _claim_template(storage: LearnerStorage) -> Manifest:
    return {"metadata": {"name": pod.STATE_VOLUME}, "spec": _claim_spec(storage)}


def _claim_spec(storage: LearnerStorage) -> Manifest:
    return claim_spec(storage.size, storage.storage_class_name)


def _container(owner: Owner, federation: Federation, group: LearnerGroup, settings: Settings) -> Manifest:
    learner = federation.spec.learner
    mounts = [
        pod.mount(pod.STATE_VOLUME, pod.STATE_DIRECTORY),
        pod.mount(pod.SCRATCH_VOLUME, pod.SCRATCH_DIRECTORY),
        *group.volume_mounts,
    ]
    if federation.spec.security.tls.enabled:
        mounts.append(pod.mount(pod.ACCESS_VOLUME, pod.ACCESS_DIRECTORY, read_only=True))
    if learner.source_ref is not None:
        mounts.append(pod.mount(pod.SOURCE_VOLUME, pod.SOURCE_DIRECTORY, read_only=True))
    return pod.container(
        names.LEARNER,
        group.image or settings.learner_image,
        settings.image_pull_policy,
        command=["python", "-m", "metisfl_learner"],
        env=pod.merged_env(_environment(owner, federation, group, settings), group),
        **pod.env_from(group),
        resources=pod.resources(group.resources),
        volumeMounts=mounts,
        terminationMessagePath=_TERMINATION_LOG,
    )


def _environment(owner: Owner, federation: Federation, group: LearnerGroup, settings: Settings) -> list[Manifest]:
    learner = federation.spec.learner
    return [
        *pod.env(
            METISFL_CONTROLLER=names.endpoint(owner.name, owner.namespace),
            METISFL_ENTRYPOINT=learner.entrypoint,
            METISFL_LEARNER_GROUP=group.name,
            METISFL_STATE_DIR=pod.STATE_DIRECTORY,
            METISFL_TLS_DIR=pod.ACCESS_DIRECTORY if federation.spec.security.tls.enabled else None,
            METISFL_PARK_AFTER_STOP="true",
            METISFL_TERMINATION_LOG=_TERMINATION_LOG,
            METISFL_LOG_FORMAT=settings.log_format,
            PYTHONPATH=None if learner.source_ref is None else pod.SOURCE_DIRECTORY,
            # Frameworks ask for both, and the user of the pod has neither in the image.
            HOME=pod.SCRATCH_DIRECTORY,
            USER="metisfl",
        ),
        {"name": "METISFL_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "METISFL_INSTANCE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
    ]
