"""Certificates and token against a real API server: made, kept, renewed, and mended."""

from __future__ import annotations

import base64
from typing import Any

from metisfl.tls.pem import read_certificates
from tests.integration.operator.world import World

AUTO: dict[str, Any] = {"tls": {"mode": "Auto", "certificateSeconds": 3 * 86_400}}


def content(world: World, name: str, key: str) -> bytes:
    return base64.b64decode(world.space.get("secrets", name)["data"][key])


def test_secrets_are_made_kept_and_renewed(world: World) -> None:
    world.start(security=AUTO)
    names = {"demo-api-token", "demo-ca", "demo-client-issuer", "demo-controller-tls"}
    assert names | {"demo-a-bootstrap", "demo-b-bootstrap"} <= set(world.space.names("secrets"))
    assert world.condition("Secured")[:2] == ("True", "MutualTls")
    before = {name: content(world, name, "token" if "token" in name else "tls.crt") for name in names}
    world.later(86_400)
    world.reconcile()
    kept = {name: content(world, name, "token" if "token" in name else "tls.crt") for name in names}
    assert kept == before
    world.later(86_400)
    world.reconcile()
    renewed = read_certificates(content(world, "demo-controller-tls", "tls.crt"))[0]
    assert renewed.not_valid_after_utc.timestamp() == world.clock[0].timestamp() + 3 * 86_400
    assert content(world, "demo-ca", "tls.crt") == before["demo-ca"]


def test_pods_are_announced_and_groups_that_go_take_their_bundle_along(world: World) -> None:
    world.start(security=AUTO)
    pods = {name: world.space.get("pods", f"demo-{name}")["metadata"]["uid"] for name in ("a-0", "a-1", "b-0")}
    assert world.controller.announced == pods
    world.edit(learnerGroups=[{"name": "a", "replicas": 2}])
    world.reconcile()
    assert "demo-b-bootstrap" not in world.space.names("secrets")
    assert "demo-a-bootstrap" in world.space.names("secrets")


def test_a_damaged_root_stops_and_says_so(world: World) -> None:
    world.start(security=AUTO)
    world.space.patch("secrets", "demo-ca", {"data": {"tls.key": base64.b64encode(b"-").decode()}})
    world.later()
    world.reconcile()
    assert world.condition("Secured")[:2] == ("False", "CertificatesUnusable")
    assert "Secret demo-ca" in world.condition("Progressing")[2]
    assert content(world, "demo-ca", "tls.key") == b"-"


def test_clear_text_is_a_condition(world: World) -> None:
    world.start(security={"tls": {"mode": "Disabled"}})
    assert world.condition("Secured")[:2] == ("False", "TlsDisabled")
    assert not [name for name in world.space.names("secrets") if name.endswith(("-ca", "-bootstrap"))]
