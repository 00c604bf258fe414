"""How sites reach the controller: the objects, and the address that bundles name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest

from metisfl.spec import Federation
from metisfl_operator.resources.expose import exposed, exposure
from metisfl_operator.resources.metadata import Owner
from metisfl_operator.served import ASK_AGAIN_SECONDS, ServedVersions, plurals

Build = Callable[..., Federation]

SERVER_NAME = "controller.u-1.metisfl.internal"
TLS = {"tls": {"mode": "Auto"}}
NODE_PORT = {"type": "NodePort", "host": "node.example.org", "nodePort": 30443}
BALANCER = {
    "type": "LoadBalancer",
    "loadBalancerSourceRanges": ["192.0.2.0/24"],
    "annotations": {"cloud/internal": "no"},
}
INGRESS = {"type": "Ingress", "host": "fl.example.org", "ingressClassName": "nginx"}
GATEWAY = {"type": "Gateway", "host": "fl.example.org", "gateway": {"name": "public", "namespace": "gateways"}}


def exposing(federation: Build, expose: dict[str, Any]) -> Federation:
    return federation(controller={"expose": expose}, security=TLS)


@pytest.mark.parametrize("version", ["1.25", "1.30", "1.36"])
@pytest.mark.parametrize("expose", [NODE_PORT, BALANCER, INGRESS], ids=lambda expose: expose["type"])
def test_objects_are_valid(federation: Build, owner: Owner, expose: dict[str, Any], version: str) -> None:
    (made,) = exposure(owner, exposing(federation, expose))
    kubernetes_validate.validate(made, version, strict=True)
    assert made["metadata"]["name"] == "demo--sites"
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u-1"


def test_by_default_nothing_is_exposed(federation: Build, owner: Owner) -> None:
    assert exposure(owner, federation()) == []
    assert exposed(federation(), None) is None


@pytest.mark.parametrize("expose", [NODE_PORT, BALANCER], ids=lambda expose: expose["type"])
def test_a_service_exposes_grpc_and_nothing_else(federation: Build, owner: Owner, expose: dict[str, Any]) -> None:
    (service,) = exposure(owner, exposing(federation, expose))
    assert service["spec"]["type"] == expose["type"]
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["grpc"]


def test_a_load_balancer_gets_its_ranges_and_annotations(federation: Build, owner: Owner) -> None:
    (service,) = exposure(owner, exposing(federation, BALANCER))
    assert service["spec"]["loadBalancerSourceRanges"] == ["192.0.2.0/24"]
    assert service["metadata"]["annotations"] == {"cloud/internal": "no"}


def test_an_ingress_passes_tls_through_by_the_federations_own_name(federation: Build, owner: Owner) -> None:
    (ingress,) = exposure(owner, exposing(federation, INGRESS))
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/ssl-passthrough"] == "true"
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == [SERVER_NAME]
    assert ingress["spec"]["ingressClassName"] == "nginx"


def test_a_gateway_gets_a_route_by_the_same_name(federation: Build, owner: Owner) -> None:
    (route,) = exposure(owner, exposing(federation, GATEWAY))
    assert (route["kind"], route["spec"]["hostnames"]) == ("TLSRoute", [SERVER_NAME])
    assert route["spec"]["parentRefs"] == [{"name": "public", "namespace": "gateways"}]
    assert route["spec"]["rules"] == [{"backendRefs": [{"name": "demo-controller", "port": 50051}]}]


@pytest.mark.parametrize(
    ("expose", "service", "address"),
    [
        (NODE_PORT, {"spec": {"ports": [{"nodePort": 30443}]}}, "node.example.org:30443"),
        (NODE_PORT, None, None),
        (NODE_PORT | {"port": 8443}, None, "node.example.org:8443"),
        (BALANCER, {"status": {"loadBalancer": {}}}, None),
        (BALANCER, {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}}, "192.0.2.7:50051"),
        (BALANCER, {"status": {"loadBalancer": {"ingress": [{"hostname": "lb.example.org"}]}}}, "lb.example.org:50051"),
        (BALANCER | {"host": "2001:db8::7", "port": 443}, None, "[2001:db8::7]:443"),
        (INGRESS, None, "fl.example.org:443"),
        (GATEWAY, None, "fl.example.org:443"),
        ({"type": "ClusterIP", "host": "tunnel.example.org"}, None, "tunnel.example.org:50051"),
    ],
)
def test_the_address_is_what_sites_dial(
    federation: Build, expose: dict[str, Any], service: dict[str, Any] | None, address: str | None
) -> None:
    assert exposed(exposing(federation, expose), service) == address


def test_the_newest_version_that_is_served_is_used_and_asked_for_once() -> None:
    asked: list[str] = []
    there = {"gateway.networking.k8s.io/v1": {"httproutes"}, "gateway.networking.k8s.io/v1alpha2": {"tlsroutes"}}

    def resources(version: str) -> set[str]:
        asked.append(version)
        return there.get(version, set())

    versions = ServedVersions(resources, lambda: 0.0)
    assert versions.of("tlsroutes") == versions.of("tlsroutes") == "gateway.networking.k8s.io/v1alpha2"
    assert len(asked) == 3


def test_what_is_missing_is_asked_for_again_later() -> None:
    now, there = [0.0], set[str]()
    versions = ServedVersions(lambda version: there if version == "policy/v1" else set(), lambda: now[0])
    assert versions.of("poddisruptionbudgets") is None
    there.add("poddisruptionbudgets")
    assert versions.of("poddisruptionbudgets") is None
    now[0] = ASK_AGAIN_SECONDS
    assert versions.of("poddisruptionbudgets") == "policy/v1"


def test_plurals_are_read_from_the_servers_list() -> None:
    assert plurals({"resources": [{"name": "tlsroutes"}, {"name": "tlsroutes/status"}]}) >= {"tlsroutes"}
