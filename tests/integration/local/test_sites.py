"""A federation on this machine that somebody joins with the bundle it wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.integration.local.runs import eventually

EXAMPLE = Path(__file__).parents[3] / "examples" / "breast-cancer" / "federation.yaml"


@pytest.mark.parametrize("mode", ["Auto", pytest.param("Disabled", marks=pytest.mark.slow)])
def test_a_site_joins_a_local_run_with_its_bundle(mode: str, tmp_path: Path) -> None:
    document = yaml.safe_load(EXAMPLE.read_text())
    document["spec"]["learner"]["parameters"] = {}
    document["spec"]["learnerGroups"] = [{"name": "here"}, {"name": "site", "external": True, "maxLearners": 1}]
    document["spec"]["termination"] = {"maxRounds": 2}
    document["spec"]["security"] = {"tls": {"mode": mode}}
    document["spec"]["output"] = {"url": f"file://{tmp_path}/models"}
    file, output = tmp_path / "federation.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "metisfl"]
    options = ["--output", str(output), "--no-progress", "--json"]
    run = subprocess.Popen(
        [*command, "run", str(file), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        bundle = output / "bundles" / "site.yaml"
        eventually(lambda: bundle.exists() or run.poll() is not None, "the bundle is there", 100)
        assert bundle.exists(), run.communicate()
        assert bundle.stat().st_mode & 0o777 == 0o600
        site = subprocess.run(
            [*command, "join", str(bundle), "--state-dir", "state"], cwd=tmp_path, timeout=100, check=False
        )
        assert site.returncode == 0
        _, err = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 0, err
    assert f"group site runs elsewhere: metisfl join {bundle}" in err
    (delivered,) = (tmp_path / "models").iterdir()
    assert f"  output   file://{delivered}" in err
    assert {file.name for file in delivered.iterdir()} == {"lineage.json", "v000002.safetensors"}
    learners = json.loads((output / "summary.json").read_text())["document"]["learners"]
    assert {learner["id"]: learner["contributions"] for learner in learners} == {"here-0": 2, "site-0": 2}
