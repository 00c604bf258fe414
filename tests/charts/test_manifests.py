"""The plain manifests: the same as the chart, and samples that work."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from metisfl.spec import parse_federation

ROOT = Path(__file__).parents[2]
GENERATED: dict[str, str] = runpy.run_path(str(ROOT / "hack" / "manifests"))["manifests"]()
SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))


@pytest.mark.parametrize("path", GENERATED)
def test_manifests_are_the_charts(path: str) -> None:
    assert (ROOT / path).read_text() == GENERATED[path], f"{path} is stale: run hack/manifests"


@pytest.mark.parametrize(
    ("root", "folders"), [(".", ("crd", "rbac", "operator")), ("monitoring", (".",))], ids=["all", "monitoring"]
)
def test_kustomize_takes_everything(root: str, folders: tuple[str, ...]) -> None:
    base = ROOT / "manifests" / root
    listed = yaml.safe_load((base / "kustomization.yaml").read_text())["resources"]
    there = [path for folder in folders for path in (base / folder).iterdir() if path.name != "kustomization.yaml"]
    assert sorted(listed) == sorted(str(path.relative_to(base)) for path in there)


def test_everything_goes_into_the_namespace_that_is_made() -> None:
    objects = [found for text in GENERATED.values() for found in yaml.safe_load_all(text)]
    made = yaml.safe_load((ROOT / "manifests" / "operator" / "namespace.yaml").read_text())["metadata"]["name"]
    namespaces = {m["metadata"]["namespace"] for m in objects if "namespace" in m["metadata"]}
    assert namespaces == {made}
    assert "Helm" not in str(objects)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_samples_are_valid(sample: Path) -> None:
    document: dict[str, Any] = yaml.safe_load(sample.read_text())
    assert parse_federation(document).metadata.name == sample.stem
