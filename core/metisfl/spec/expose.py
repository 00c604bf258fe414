"""`spec.controller.expose`: how learners outside of the cluster reach the controller."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from metisfl.spec.fields import ObjectName, SpecModel
from metisfl.spec.rule import Json, Rule

HOST_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$"
CIDR_PATTERN = r"^[0-9A-Fa-f.:]+/[0-9]{1,3}$"

Host = Annotated[str, StringConstraints(pattern=HOST_PATTERN, min_length=1, max_length=253)]
Port = Annotated[int, Field(ge=1, le=65_535)]
Annotations = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=317)],
        Annotated[str, StringConstraints(max_length=4096)],
    ],
    Field(max_length=64),
]
Cidr = Annotated[str, StringConstraints(pattern=CIDR_PATTERN, max_length=49)]


class ExposeType(StrEnum):
    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    INGRESS = "Ingress"
    GATEWAY = "Gateway"


class GatewayRef(SpecModel):
    """The Gateway (gateway.networking.k8s.io) whose TLS passthrough listener takes the learners' connections."""

    name: ObjectName
    """The Gateway's name."""

    namespace: ObjectName | None = None
    """By default the federation's own."""

    section_name: ObjectName | None = None
    """Its listener; by default every one that fits."""


class ExposeSpec(SpecModel):
    """Where learners outside of the cluster reach the controller's gRPC; never its REST API."""

    type: ExposeType = ExposeType.CLUSTER_IP
    """ClusterIP: not by the operator; set host where something of your own leads here. NodePort, LoadBalancer: by a
    Service. Ingress, Gateway: by its TLS passthrough, which routes by the name that learners ask for."""

    host: Host | None = None
    """Name or address that sites dial: of a node, of the load balancer, of the ingress or gateway. For LoadBalancer by
    default the address it is given."""

    port: Port | None = None
    """Port that sites dial. By default the node port of NodePort, 443 of Ingress and Gateway, and 50051."""

    node_port: Port | None = None
    """Of NodePort and LoadBalancer; by default the cluster chooses."""

    annotations: Annotations = {}
    """On the Service, Ingress or TLSRoute that is made, for whoever implements it."""

    load_balancer_source_ranges: Annotated[list[Cidr], Field(max_length=64)] = []
    """Networks that may connect to the LoadBalancer, where it can tell; by default all."""

    ingress_class_name: ObjectName | None = None
    """Of Ingress; by default the cluster's default class."""

    gateway: GatewayRef | None = None


def _type_needs_host(expose: Json) -> bool:
    return expose.get("type") not in ("NodePort", "Ingress", "Gateway") or "host" in expose


def _gateway_is_named(expose: Json) -> bool:
    return (expose.get("type") == "Gateway") == ("gateway" in expose)


def _class_is_an_ingress_class(expose: Json) -> bool:
    return expose.get("type") == "Ingress" or "ingressClassName" not in expose


def _node_port_has_a_node_port(expose: Json) -> bool:
    return expose.get("type") in ("NodePort", "LoadBalancer") or "nodePort" not in expose


def _ranges_are_a_load_balancers(expose: Json) -> bool:
    return expose.get("type") == "LoadBalancer" or not expose.get("loadBalancerSourceRanges")


def _passthrough_has_tls(spec: Json) -> bool:
    kind = spec.get("controller", {}).get("expose", {}).get("type")
    return kind not in ("Ingress", "Gateway") or spec.get("security", {}).get("tls", {}).get("mode") != "Disabled"


_PATH = ("spec", "controller", "expose")

RULES: tuple[Rule, ...] = (
    Rule(
        path=_PATH,
        message="types NodePort, Ingress and Gateway need host: what sites dial",
        holds=_type_needs_host,
        cel="!(self.type in ['NodePort', 'Ingress', 'Gateway']) || has(self.host)",
    ),
    Rule(
        path=_PATH,
        message="set gateway with type Gateway, and with no other",
        holds=_gateway_is_named,
        cel="(self.type == 'Gateway') == has(self.gateway)",
    ),
    Rule(
        path=_PATH,
        message="ingressClassName is for type Ingress",
        holds=_class_is_an_ingress_class,
        cel="self.type == 'Ingress' || !has(self.ingressClassName)",
    ),
    Rule(
        path=_PATH,
        message="nodePort is for types NodePort and LoadBalancer",
        holds=_node_port_has_a_node_port,
        cel="self.type in ['NodePort', 'LoadBalancer'] || !has(self.nodePort)",
    ),
    Rule(
        path=_PATH,
        message="loadBalancerSourceRanges are for type LoadBalancer",
        holds=_ranges_are_a_load_balancers,
        cel="self.type == 'LoadBalancer' || !has(self.loadBalancerSourceRanges) || "
        "size(self.loadBalancerSourceRanges) == 0",
    ),
    Rule(
        path=("spec",),
        message="controller.expose.type Ingress and Gateway route by the name in TLS: set security.tls.mode to Auto",
        holds=_passthrough_has_tls,
        cel="!has(self.controller) || !has(self.controller.expose) || "
        "!(self.controller.expose.type in ['Ingress', 'Gateway']) || "
        "(has(self.security) && has(self.security.tls) && self.security.tls.mode != 'Disabled')",
    ),
)
