"""What installs the operator, as the chart would with its default values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml

from metisfl.spec.crd import crd

CHART_NAMESPACE = "metisfl-system"
_IMAGE_VARIABLES = {"METISFL_CONTROLLER_IMAGE": "controller", "METISFL_LEARNER_IMAGE": "learner"}


def controller_image() -> str:
    """Of this release."""
    text = files("metisfl.cluster").joinpath("operator.yaml").read_text(encoding="utf-8")
    (deployment,) = (found for found in yaml.safe_load_all(text) if found["kind"] == "Deployment")
    variables = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    return str(next(each["value"] for each in variables if each["name"] == "METISFL_CONTROLLER_IMAGE"))


def installation(namespace: str, images: Mapping[str, str], with_crd: bool) -> str:
    """YAML for `kubectl apply -f -`. `images`: by role (operator, controller, learner), where not the chart's."""
    text = files("metisfl.cluster").joinpath("operator.yaml").read_text(encoding="utf-8")
    objects = [_moved(found, namespace) for found in yaml.safe_load_all(text)]
    for found in objects:
        if found["kind"] == "Deployment":
            _set_images(found["spec"]["template"]["spec"]["containers"][0], images)
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    every = [made, *([crd()] if with_crd else []), *objects]
    return "---\n".join(yaml.safe_dump(each, sort_keys=False, width=120, allow_unicode=True) for each in every)


def _moved(node: Any, namespace: str) -> Any:
    if isinstance(node, dict):
        return {
            key: namespace if (key, value) == ("namespace", CHART_NAMESPACE) else _moved(value, namespace)
            for key, value in node.items()
        }
    return [_moved(child, namespace) for child in node] if isinstance(node, list) else node


def _set_images(container: dict[str, Any], images: Mapping[str, str]) -> None:
    if "operator" in images:
        container["image"] = images["operator"]
    for variable in container["env"]:
        role = _IMAGE_VARIABLES.get(variable["name"], "")
        if role in images:
            variable["value"] = images[role]
