"""Models that leave the cluster: to an object store, with credentials from a Secret."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.controller.object_store import serving


def test_the_model_and_its_lineage_reach_an_object_store(
    cluster: Any, lab: Any, run: Callable[..., str], example: Callable[..., dict[str, Any]]
) -> None:
    if not cluster.ours:
        pytest.skip("whether pods of another cluster reach this machine is not known")
    address = lab.kubectl(
        "get", "nodes", "-o", "jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}"
    )
    with serving(address.split()[0]) as store:
        literals = [f"--from-literal={name}={value}" for name, value in store.environment().items()]
        lab.kubectl("create", "secret", "generic", "s3", "-n", lab.namespace, *literals)
        output = {"url": "s3://models/hospital", "secretRef": {"name": "s3"}}
        name = run(example("breast-cancer", "output", output=output, termination={"maxRounds": 2}))
        status = lab.until_complete(name)
        uid = lab.federation(name)["metadata"]["uid"]
        folder = f"hospital/output-{uid[:8]}"
        _, reason, message = lab.condition(name, "ModelDelivered")
        assert (reason, message) == ("Delivered", f"Version 2 is at s3://models/{folder}")
        model, lineage = (store.objects[f"models/{folder}/{file}"] for file in ("v000002.safetensors", "lineage.json"))
        assert hashlib.sha256(model).hexdigest() == status["globalModel"]["sha256"]
        assert json.loads(lineage)["published"] == 2
