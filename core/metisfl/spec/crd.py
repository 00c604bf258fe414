"""The CustomResourceDefinition of `Federation`, generated from the models that validate it everywhere else."""

from __future__ import annotations

from typing import Any

import yaml

from metisfl.spec.examples import explained
from metisfl.spec.federation import API_GROUP, API_VERSION, KIND, PLURAL, Federation, FederationSpec
from metisfl.spec.rules import FIXED, RULES
from metisfl.spec.status import FederationStatus
from metisfl.spec.structural import Schema, structural_schema

SINGULAR = "federation"
SHORT_NAME = "mfed"
CATEGORY = "metisfl"


def crd(*, rules: bool = True) -> dict[str, Any]:
    """The whole object, as `kubectl apply` takes it; its order of keys is stable.

    Without `rules` it holds no CEL: API servers before 1.25 do not know the field, and some clients then refuse to send
    it. The operator judges the same rules itself.
    """
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{API_GROUP}"},
        "spec": {
            "group": API_GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": SINGULAR,
                "shortNames": [SHORT_NAME],
                "categories": [CATEGORY],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": API_VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _printer_columns(),
                    "schema": {"openAPIV3Schema": schema(rules=rules)},
                }
            ],
        },
    }


def crd_yaml(*, rules: bool = True) -> str:
    """`crd()` as YAML text, the form in which manifests/ and the chart hold it."""
    text: str = yaml.safe_dump(crd(rules=rules), sort_keys=False, width=120, allow_unicode=True)
    return text


def schema(*, rules: bool = True) -> Schema:
    """The structural schema of a Federation, with the rules across fields as CEL."""
    root: Schema = {
        "type": "object",
        "description": "A federated-learning run: learners that train where their data lives, and a controller that "
        "aggregates their models.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _with_examples(structural_schema(FederationSpec)),
            "status": structural_schema(FederationStatus),
        },
    }
    if rules:
        _add_rules(root)
    return root


def _with_examples(spec: Schema, parents: str = "") -> Schema:
    """`spec`, in place, with the examples of its parts in their descriptions."""
    for name, node in spec.get("properties", {}).items():
        if description := explained(f"{parents}{name}", node.get("description", "")):
            node["description"] = description
        _with_examples(node, f"{parents}{name}.")
    return spec


def _add_rules(root: Schema) -> None:
    _validate(root, (), _name_rule(), "metadata.name must be lower-case letters, digits and '-', at most 40 characters")
    for rule in RULES:
        if rule.cel:
            _validate(root, rule.path, rule.cel, rule.message)
    for fixed in FIXED:
        _validate(root, fixed.path, fixed.cel, fixed.message)


def _name_rule() -> str:
    """The models' bounds on metadata.name as CEL: a schema may not describe metadata beyond that."""
    name = Federation.model_json_schema()["$defs"]["ObjectMeta"]["properties"]["name"]
    return f"size(self.metadata.name) <= {name['maxLength']} && self.metadata.name.matches('{name['pattern']}')"


def _validate(root: Schema, path: tuple[str, ...], cel: str, message: str) -> None:
    node = root
    for key in path:
        node = node["properties"][key.removesuffix("[]")]
        node = node["items"] if key.endswith("[]") else node
    node.setdefault("x-kubernetes-validations", []).append({"rule": cel, "message": message})


def _condition(of: str, what: str) -> str:
    return f'.status.conditions[?(@.type=="{of}")].{what}'


def _printer_columns() -> list[dict[str, Any]]:
    """What `kubectl get mfed` shows, and with `-o wide`."""

    def column(name: str, path: str, kind: str = "string", *, wide: bool = False) -> dict[str, Any]:
        return {"name": name, "type": kind, "jsonPath": path, **({"priority": 1} if wide else {})}

    return [
        column("Complete", _condition("Complete", "status")),
        column("Round", ".status.currentRound", "integer"),
        column("Rounds", ".spec.termination.maxRounds", "integer"),
        column("Learners", ".status.learners.summary"),
        column("Metric", ".status.metrics[0].value"),
        column("Age", ".metadata.creationTimestamp", "date"),
        column("Protocol", ".spec.protocol.type", wide=True),
        column("Rule", ".spec.aggregation.rule", wide=True),
        column("Reason", _condition("Progressing", "reason"), wide=True),
    ]
