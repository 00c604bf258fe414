"""Certificates and token against a real API server: made, kept, renewed, and mended."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

from metisfl.tls.authority import issue_server, make_client_issuer, make_root, new_key
from metisfl.tls.names import server_name
from metisfl.tls.pem import KeyPair, certificates_pem, key_pem, pair, read_certificates
from metisfl_operator import names
from tests.integration.operator.conftest import RefusedError, eventually
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


def test_a_root_that_lost_its_label_is_kept_and_labelled_again(world: World) -> None:
    world.start(security=AUTO)
    before = content(world, "demo-ca", "tls.crt")
    world.space.patch("secrets", "demo-ca", {"metadata": {"labels": {names.LABEL_FEDERATION: None}}})
    world.later()
    world.reconcile()
    assert content(world, "demo-ca", "tls.crt") == before
    assert world.space.get("secrets", "demo-ca")["metadata"]["labels"][names.LABEL_FEDERATION] == "demo"


def test_clear_text_is_a_condition(world: World) -> None:
    world.start(security={"tls": {"mode": "Disabled"}})
    assert world.condition("Secured")[:2] == ("False", "TlsDisabled")
    assert not [name for name in world.space.names("secrets") if name.endswith(("-ca", "-bootstrap"))]


CERTIFICATES: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "certificates.cert-manager.io"},
    "spec": {
        "group": "cert-manager.io",
        "names": {"kind": "Certificate", "plural": "certificates"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def test_certificates_of_cert_manager_are_asked_for_and_waited_for(world: World, control_plane: Any) -> None:
    """The test plays cert-manager, whose resource is there in name only."""
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    control_plane.request("POST", definitions, CERTIFICATES)
    try:
        path = f"/apis/cert-manager.io/v1/namespaces/{world.space.name}/certificates"
        eventually("Certificates are served", lambda: _answers(control_plane, path))
        tls = {"mode": "CertManager", "certManager": {"issuerRef": {"name": "company-ca"}}}
        world.federate(security={"tls": tls})
        world.reconcile()
        asked = {item["metadata"]["name"]: item["spec"] for item in control_plane.request("GET", path)["items"]}
        assert set(asked) == {"demo-controller-tls", "demo-client-issuer"}
        assert world.condition("Secured")[:2] == ("False", "CertificatesMissing")
        assert world.replicas() == {}, "nothing starts without certificates"

        now = world.clock[0]
        root = make_root("company", timedelta(days=900), now)
        key = new_key()
        server = issue_server(root, world.controller.uid, key.public_key(), timedelta(days=90), now)
        assert asked["demo-controller-tls"]["dnsNames"] == [server_name(world.controller.uid)]
        issuer = make_client_issuer(root, "company", timedelta(days=800), now)
        _issue(world, "demo-controller-tls", KeyPair(certificates_pem([server]), key_pem(key)), root.certificate)
        _issue(world, "demo-client-issuer", pair([issuer.certificate], issuer.key), root.certificate)
        world.later()
        world.reconcile()
        assert world.condition("Secured")[:2] == ("True", "MutualTls")
        assert world.replicas() == {"demo-a": 2, "demo-b": 1, "demo-controller": 1}
        assert "demo-ca" not in world.space.names("secrets")
        assert content(world, "demo-a-bootstrap", "ca.crt") == certificates_pem([root.certificate])
    finally:
        control_plane.request("DELETE", f"{definitions}/certificates.cert-manager.io")


def _issue(world: World, name: str, made: KeyPair, root: Any) -> None:
    content = {"ca.crt": certificates_pem([root]), "tls.crt": made.certificate, "tls.key": made.key}
    data = {key: base64.b64encode(value).decode() for key, value in content.items()}
    world.space.create("secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data})


def _answers(control_plane: Any, path: str) -> bool:
    try:
        return bool(control_plane.request("GET", path)["kind"])
    except RefusedError:
        return False
