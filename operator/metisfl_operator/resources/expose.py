"""What leads learners outside of the cluster to the controller: a Service, an Ingress or a TLSRoute, or nothing.

Ingress and TLSRoute pass TLS through and route by the name that learners ask for, which is the federation's own
(`metisfl.tls.names`), so that any number of federations share one address and port.
"""

from __future__ import annotations

from metisfl.spec import Federation
from metisfl.spec.expose import ExposeSpec, ExposeType
from metisfl_operator import names
from metisfl_operator.resources.metadata import Manifest, Owner, metadata

TLS_PORT = 443
# Without these ingress-nginx would end TLS itself; others ignore them.
_NGINX = {
    "nginx.ingress.kubernetes.io/ssl-passthrough": "true",
    "nginx.ingress.kubernetes.io/backend-protocol": "GRPCS",
}


def exposure(owner: Owner, federation: Federation) -> list[Manifest]:
    """The objects that the spec asks for; none for ClusterIP."""
    expose = federation.spec.controller.expose
    match expose.type:
        case ExposeType.NODE_PORT | ExposeType.LOAD_BALANCER:
            return [_service(owner, expose)]
        case ExposeType.INGRESS:
            return [_ingress(owner, expose, federation.spec.security.tls.server_name(owner.uid))]
        case ExposeType.GATEWAY:
            return [_tls_route(owner, expose, federation.spec.security.tls.server_name(owner.uid))]
        case ExposeType.CLUSTER_IP:
            return []


def exposed(federation: Federation, service: Manifest | None) -> str | None:
    """host:port that sites dial; None while there is no such address. `service` is the exposing one, as observed."""
    expose = federation.spec.controller.expose
    host, port = expose.host, expose.port
    match expose.type:
        case ExposeType.NODE_PORT:
            port = port or _node_port(service)
        case ExposeType.LOAD_BALANCER:
            host, port = host or _balancer(service), port or names.GRPC_PORT
        case ExposeType.INGRESS | ExposeType.GATEWAY:
            port = port or TLS_PORT
        case ExposeType.CLUSTER_IP:
            port = port or names.GRPC_PORT
    if host is None or port is None:
        return None
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _service(owner: Owner, expose: ExposeSpec) -> Manifest:
    """Beside the one for the cluster: that one keeps its address, and REST stays inside."""
    node_port = {} if expose.node_port is None else {"nodePort": expose.node_port}
    ranges = expose.load_balancer_source_ranges
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(owner, dict(expose.annotations)),
        "spec": {
            "type": expose.type.value,
            "selector": names.selector_labels(owner.name, names.CONTROLLER),
            "ports": [
                {"name": "grpc", "port": names.GRPC_PORT, "targetPort": "grpc", "protocol": "TCP", **node_port},
            ],
            **({"loadBalancerSourceRanges": ranges} if ranges else {}),
        },
    }


def _ingress(owner: Owner, expose: ExposeSpec, server_name: str) -> Manifest:
    backend = {"service": {"name": names.controller_name(owner.name), "port": {"name": "grpc"}}}
    chosen = {} if expose.ingress_class_name is None else {"ingressClassName": expose.ingress_class_name}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": _metadata(owner, _NGINX | expose.annotations),
        "spec": {
            **chosen,
            "tls": [{"hosts": [server_name]}],
            "rules": [
                {
                    "host": server_name,
                    "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
                }
            ],
        },
    }


def _tls_route(owner: Owner, expose: ExposeSpec, server_name: str) -> Manifest:
    assert expose.gateway is not None
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "TLSRoute",
        "metadata": _metadata(owner, dict(expose.annotations)),
        "spec": {
            "parentRefs": [expose.gateway.model_dump(by_alias=True, exclude_none=True)],
            "hostnames": [server_name],
            "rules": [{"backendRefs": [{"name": names.controller_name(owner.name), "port": names.GRPC_PORT}]}],
        },
    }


def _metadata(owner: Owner, annotations: dict[str, str]) -> Manifest:
    labels = names.labels(owner.name, names.CONTROLLER)
    made = metadata(owner, names.exposure_name(owner.name), labels)
    return {**made, "annotations": annotations} if annotations else made


def _node_port(service: Manifest | None) -> int | None:
    ports = (service or {}).get("spec", {}).get("ports", [])
    return next((port.get("nodePort") for port in ports), None)


def _balancer(service: Manifest | None) -> str | None:
    given = (service or {}).get("status", {}).get("loadBalancer", {}).get("ingress") or [{}]
    address: str | None = given[0].get("hostname") or given[0].get("ip")
    return address
