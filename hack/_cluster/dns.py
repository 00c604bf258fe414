"""Names of Services, as pods see them: what a cluster's DNS answers, written into a hosts file for dnsmasq."""

from collections.abc import Iterable, Iterator
from typing import Any

from _cluster.api import Api
from _cluster.home import DNS_SERVICE_IP, DOMAIN, NODE_IP

_SYSTEM = "/api/v1/namespaces/kube-system"


def publish(api: Api) -> None:
    """Make the Service by whose address every pod finds the DNS server on the node."""
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    metadata = {"name": "kube-dns", "namespace": "kube-system"}
    api.apply(
        f"{_SYSTEM}/services/kube-dns",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"clusterIP": DNS_SERVICE_IP, "ports": ports},
        },
    )
    api.apply(
        f"{_SYSTEM}/endpoints/kube-dns",
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": metadata,
            "subsets": [{"addresses": [{"ip": NODE_IP}], "ports": ports}],
        },
    )


def hosts(services: Iterable[dict[str, Any]], endpoints: Iterable[dict[str, Any]]) -> str:
    """The text of a hosts file for these Services and Endpoints (API objects), sorted.

    A Service with an address has one name. A headless one has its name for every ready address and, for an address
    with a host name (a StatefulSet's pod), `host.service` besides.
    """
    lines: set[str] = set()
    headless = set()
    for service in services:
        address = service["spec"].get("clusterIP")
        if address == "None":
            headless.add(_name(service))
        elif address:
            lines.add(f"{address} {_name(service)}")
    for entry in endpoints:
        if _name(entry) in headless:
            lines.update(_endpoint_lines(entry))
    return "".join(f"{line}\n" for line in sorted(lines))


def _endpoint_lines(entry: dict[str, Any]) -> Iterator[str]:
    name = _name(entry)
    for subset in entry.get("subsets") or ():
        for address in subset.get("addresses") or ():
            yield f"{address['ip']} {name}"
            if host := address.get("hostname"):
                yield f"{address['ip']} {host}.{name}"


def _name(obj: dict[str, Any]) -> str:
    metadata = obj["metadata"]
    return f"{metadata['name']}.{metadata['namespace']}.svc.{DOMAIN}"
