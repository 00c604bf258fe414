"""A federation on this machine that somebody joins with the bundle it wrote, through a proxy."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from tests.integration.controller.proxy import proxying

EXAMPLE = Path(__file__).parents[3] / "examples" / "breast-cancer" / "federation.yaml"
METISFL = (sys.executable, "-m", "metisfl")


@pytest.mark.parametrize("mode", ["Auto", pytest.param("Disabled", marks=pytest.mark.slow)])
async def test_a_site_joins_a_local_run_with_its_bundle(mode: str, tmp_path: Path) -> None:
    document = yaml.safe_load(EXAMPLE.read_text())
    document["spec"]["learner"]["parameters"] = {}
    document["spec"]["learnerGroups"] = [{"name": "here"}, {"name": "site", "external": True, "maxLearners": 1}]
    document["spec"]["termination"] = {"maxRounds": 2}
    document["spec"]["security"] = {"tls": {"mode": mode}}
    document["spec"]["output"] = {"url": f"file://{tmp_path}/models"}
    file, output = tmp_path / "federation.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(document))
    bundle = output / "bundles" / "site.yaml"
    options = ("--output", str(output), "--no-progress", "--json")
    run = await asyncio.create_subprocess_exec(*METISFL, "run", str(file), *options, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(100):
            while not bundle.exists() and run.returncode is None:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.05)
        assert bundle.exists(), await run.communicate()
        assert bundle.stat().st_mode & 0o777 == 0o600
        async with proxying() as proxy:
            around = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
            site = await asyncio.create_subprocess_exec(
                *(*METISFL, "join", str(bundle), "--state-dir", "state"),
                cwd=tmp_path,
                env=around | {"https_proxy": proxy.url},
            )
            assert await asyncio.wait_for(site.wait(), 100) == 0
        _, told = await asyncio.wait_for(run.communicate(), 60)
    finally:
        with suppress(ProcessLookupError):
            run.kill()
    err = told.decode()
    assert run.returncode == 0, err
    assert f"group site runs elsewhere: metisfl join {bundle}" in err
    endpoint = json.loads((output / "endpoints.json").read_text())["grpc"]
    assert {tunnel.target for tunnel in proxy.tunnels} == {endpoint}
    (delivered,) = (tmp_path / "models").iterdir()
    assert f"  output   file://{delivered}" in err
    assert {file.name for file in delivered.iterdir()} == {"lineage.json", "v000002.safetensors"}
    learners = json.loads((output / "summary.json").read_text())["document"]["learners"]
    assert {learner["id"]: learner["contributions"] for learner in learners} == {"here-0": 2, "site-0": 2}
