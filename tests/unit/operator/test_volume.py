"""Claims: what they ask for once they are there, and who mounts them."""

from __future__ import annotations

from typing import Any

import pytest

from metisfl_operator.resources.volume import claim_spec, mounted_claims, settled


@pytest.mark.parametrize(
    ("wanted", "found", "size"),
    [
        ("1Gi", "5Gi", "5Gi"),
        ("5Gi", "1Gi", "5Gi"),
        ("1Gi", "1500M", "1500M"),
        ("2Gi", "1e9", "2Gi"),
        # As the server writes 1.001Gi: less by a part of a byte is less.
        ("1.001Gi", "1074815565824m", "1074815565824m"),
    ],
)
def test_a_claim_never_shrinks(wanted: str, found: str, size: str) -> None:
    current = {"spec": {**claim_spec("1Gi", None), "resources": {"requests": {"storage": found}}}}
    asked = settled({"metadata": {"name": "c"}, "spec": claim_spec(wanted, None)}, current)
    assert asked["spec"]["resources"]["requests"]["storage"] == size
    assert asked["metadata"] == {"name": "c"}


@pytest.mark.parametrize("class_name", [None, "", "fast"])
def test_a_claim_keeps_its_class(class_name: str | None) -> None:
    asked = settled({"spec": claim_spec("1Gi", "slow")}, {"spec": claim_spec("1Gi", class_name)})
    assert asked["spec"] == claim_spec("1Gi", class_name)


def test_pods_mount_claims_by_template_and_by_name() -> None:
    volumes: list[dict[str, Any]] = [
        {"name": "data", "persistentVolumeClaim": {"claimName": "shared"}},
        {"name": "scratch", "emptyDir": {}},
    ]
    workload: dict[str, Any] = {
        "metadata": {"name": "demo-a"},
        "spec": {
            "replicas": 2,
            "template": {"spec": {"volumes": volumes}},
            "volumeClaimTemplates": [{"metadata": {"name": "state"}}],
        },
    }
    assert mounted_claims(workload) == {"shared", "state-demo-a-0", "state-demo-a-1"}
    workload["spec"]["replicas"] = 0
    assert mounted_claims(workload) == set()
