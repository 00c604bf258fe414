"""NetworkPolicies: who may talk to a federation's pods, and with whom its pods may talk.

They have an effect where the cluster's network enforces them; elsewhere they do no harm.
"""

from __future__ import annotations

from metisfl.spec import Federation
from metisfl.spec.expose import ExposeType
from metisfl_operator import names
from metisfl_operator.resources.metadata import Manifest, Owner, metadata
from metisfl_operator.settings import NetworkSettings

_DNS: Manifest = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
# A namespace has no label to know it by before Kubernetes 1.21, so the operator is known by its own labels anywhere.
_OPERATOR: Manifest = {
    "namespaceSelector": {},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "metisfl-operator"}},
}


def network_policies(owner: Owner, federation: Federation, settings: NetworkSettings) -> list[Manifest]:
    """One for the controller and one for all learners."""
    controller = names.selector_labels(owner.name, names.CONTROLLER)
    learners = names.selector_labels(owner.name, names.LEARNER)
    from_whom = {} if _from_outside(federation) else {"from": [{"podSelector": {"matchLabels": learners}}]}
    learner_egress = None
    if settings.learner_egress is not None:
        to_controller = {"to": [{"podSelector": {"matchLabels": controller}}], "ports": [_tcp(names.GRPC_PORT)]}
        learner_egress = [_DNS, to_controller, *settings.learner_egress]
    return [
        _policy(
            owner,
            names.CONTROLLER,
            controller,
            ingress=[
                {**from_whom, "ports": [_tcp(names.GRPC_PORT)]},
                {"from": [_OPERATOR, *settings.http_from], "ports": [_tcp(names.HTTP_PORT)]},
            ],
            egress=[_DNS, *_to_output(federation), *settings.controller_egress],
        ),
        _policy(owner, names.LEARNER, learners, ingress=[], egress=learner_egress),
    ]


def _from_outside(federation: Federation) -> bool:
    """Sites may come by any way; behind a load balancer or an ingress, where connections come from says nothing."""
    expose = federation.spec.controller.expose
    exposed = expose.type is not ExposeType.CLUSTER_IP or expose.host is not None
    return exposed or any(group.external for group in federation.spec.learner_groups)


def _to_output(federation: Federation) -> list[Manifest]:
    """HTTPS of an object store, whose addresses nobody knows beforehand."""
    output = federation.spec.output
    return [] if output is None or output.url.startswith("file:") else [{"ports": [_tcp(443)]}]


def _policy(
    owner: Owner, component: str, selector: Manifest, ingress: list[Manifest], egress: list[Manifest] | None
) -> Manifest:
    """Without `egress`, connections to anywhere are allowed."""
    name = names.controller_name(owner.name) if component == names.CONTROLLER else names.all_learners_name(owner.name)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(owner, name, names.labels(owner.name, component)),
        "spec": {
            "podSelector": {"matchLabels": selector},
            "policyTypes": ["Ingress"] if egress is None else ["Ingress", "Egress"],
            "ingress": ingress,
            **({} if egress is None else {"egress": egress}),
        },
    }


def _tcp(port: int) -> Manifest:
    return {"port": port, "protocol": "TCP"}
