"""What can be said about a pod, of the controller and of each learner group alike.

Parts that are Kubernetes' own are named as in a pod and kept as they are; the API server judges them when the pod's
StatefulSet is applied.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from metisfl.spec.fields import LabelValue, ObjectName, PodPart, SpecModel
from metisfl.spec.rule import Json, Rule

ENV_NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
OWN_VARIABLES = "METISFL_"
OWN_LABELS = ("metisfl.dev/", "app.kubernetes.io/")

_EnvName = Annotated[str, StringConstraints(pattern=ENV_NAME_PATTERN, min_length=1, max_length=128)]
_Text = Annotated[str, StringConstraints(max_length=4096)]
_Key = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class EnvVar(SpecModel):
    """A variable of the container's environment."""

    name: _EnvName
    """Names that begin with METISFL_ belong to the product."""

    value: _Text | None = None
    """Plain text; empty when neither this nor valueFrom is set."""

    value_from: PodPart | None = None
    """From a Secret, a ConfigMap or a field, as in a pod."""


class PullSecret(SpecModel):
    name: ObjectName
    """Secret of type kubernetes.io/dockerconfigjson in the same namespace."""


class PodOptions(SpecModel):
    """Where and how pods run. They are replaced when one of these changes; no finished work is lost by that."""

    resources: PodPart | None = None
    """Requests and limits of the container, as in a pod. For example: {limits: {nvidia.com/gpu: 1, memory: 16Gi}}."""

    env: Annotated[
        list[EnvVar],
        Field(
            max_length=64,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    """More variables for the container, such as {name: HTTPS_PROXY, value: "http://proxy:3128"}."""

    env_from: Annotated[list[PodPart], Field(max_length=16)] = []
    """Variables from whole ConfigMaps or Secrets, as in a pod."""

    volumes: Annotated[list[PodPart], Field(max_length=32)] = []
    """More volumes, as in a pod: the site's data. For example: [{name: data, persistentVolumeClaim: {claimName: scans,
    readOnly: true}}]."""

    volume_mounts: Annotated[list[PodPart], Field(max_length=32)] = []
    """Where the container sees those volumes, as in a pod."""

    init_containers: Annotated[list[PodPart], Field(max_length=8)] = []
    """Containers that run first, as in a pod, for example to fetch data. They get the restricted security context where
    they name none."""

    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32)] = {}
    """Labels of the nodes that may run these pods."""

    affinity: PodPart | None = None
    """As in a pod."""

    tolerations: Annotated[list[PodPart], Field(max_length=32)] = []
    """As in a pod. For example: [{key: nvidia.com/gpu, operator: Exists}]."""

    topology_spread_constraints: Annotated[list[PodPart], Field(max_length=8)] = []
    """As in a pod; without a labelSelector, one counts the pods of this group."""

    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods."""

    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods, such as nvidia."""

    service_account_name: ObjectName | None = None
    """ServiceAccount of the pods, for its pull secrets and cloud identity. Its token is not mounted."""

    image_pull_secrets: Annotated[list[PullSecret], Field(max_length=8)] = []
    """Secrets to pull images with."""

    pod_labels: Annotated[dict[_Key, LabelValue], Field(max_length=32)] = {}
    """More labels for the pods."""

    pod_annotations: Annotated[dict[_Key, _Text], Field(max_length=32)] = {}
    """Annotations for the pods."""


def pods_of(spec: Json) -> list[Json]:
    """Everything in a spec that describes pods."""
    return [*spec["learnerGroups"], spec.get("controller", {})]


def _no_own_variables(spec: Json) -> bool:
    return not any(var["name"].startswith(OWN_VARIABLES) for pod in pods_of(spec) for var in pod.get("env", ()))


def _no_own_labels(spec: Json) -> bool:
    return not any(key.startswith(OWN_LABELS) for pod in pods_of(spec) for key in pod.get("podLabels", ()))


def _one_value_each(spec: Json) -> bool:
    return not any("value" in var and "valueFrom" in var for pod in pods_of(spec) for var in pod.get("env", ()))


def _names_differ(spec: Json) -> bool:
    names = [[var["name"] for var in pod.get("env", ())] for pod in pods_of(spec)]
    return all(len(each) == len(set(each)) for each in names)


def _for_all_pods(field: str, holds: str) -> str:
    """A rule about one field of what describes pods, `{}` in `holds`: for the groups and the controller, where set."""

    def rule(owner: str) -> str:
        return f"(!has({owner}.{field}) || {holds.format(f'{owner}.{field}')})"

    return f"self.learnerGroups.all(g, {rule('g')}) && (!has(self.controller) || {rule('self.controller')})"


RULES: tuple[Rule, ...] = (
    Rule(
        path=("spec",),
        message=f"env must not set variables that begin with {OWN_VARIABLES}: they are the product's own",
        holds=_no_own_variables,
        cel=_for_all_pods("env", f"{{}}.all(e, !e.name.startsWith('{OWN_VARIABLES}'))"),
    ),
    Rule(
        path=("spec",),
        message="env must give each variable either a value or a valueFrom",
        holds=_one_value_each,
        cel=_for_all_pods("env", "{}.all(e, !has(e.value) || !has(e.valueFrom))"),
    ),
    Rule(
        path=("spec",),
        message="env must not set a variable twice",
        holds=_names_differ,
        # The API server refuses duplicates itself: the list's type is map, keyed by name.
        cel="",
    ),
    Rule(
        path=("spec",),
        message=f"podLabels must not begin with {' or '.join(OWN_LABELS)}: those labels are the product's own",
        holds=_no_own_labels,
        cel=_for_all_pods(
            "podLabels", "{}.all(k, " + " && ".join(f"!k.startsWith('{prefix}')" for prefix in OWN_LABELS) + ")"
        ),
    ),
)
