"""Names, labels and paths that the parts of a federation know each other by; the command line shares some of them."""

from __future__ import annotations

from metisfl.cluster.names import LABEL_FEDERATION as LABEL_FEDERATION
from metisfl.cluster.names import bootstrap_secret as bootstrap_secret
from metisfl.cluster.names import controller_name as controller_name
from metisfl.cluster.names import token_secret as token_secret
from metisfl.spec import API_GROUP
from metisfl.spec.security import TlsSpec

FIELD_MANAGER = "metisfl-operator"

LABEL_GROUP = f"{API_GROUP}/group"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"

CONTROLLER = "controller"
LEARNER = "learner"

GRPC_PORT = 50051
HTTP_PORT = 8080

CONFIG_FILE = "federation.json"
PLAN_FILE = "partition-plan.json"


def exposure_name(federation: str) -> str:
    """What leads to the controller from outside of the cluster."""
    return f"{federation}--sites"


def all_learners_name(federation: str) -> str:
    """What concerns the learners of every group. No group's name is the same: none begins with a hyphen."""
    return f"{federation}--learners"


def learners_name(federation: str, group: str) -> str:
    """The StatefulSet of a learner group; its pods add an ordinal."""
    return f"{federation}-{group}"


def root_secret(federation: str) -> str:
    """The federation's root certificate and its key."""
    return f"{federation}-ca"


def issuer_secret(federation: str, tls: TlsSpec) -> str:
    """What the controller signs learners' certificates with."""
    return tls.secret.client_issuer if tls.secret else f"{federation}-client-issuer"


def server_secret(federation: str, tls: TlsSpec) -> str:
    """The controller's certificate and key."""
    return tls.secret.server if tls.secret else f"{federation}-controller-tls"


def endpoint(federation: str, namespace: str) -> str:
    """host:port of the controller's gRPC for every pod of the cluster."""
    return f"{controller_name(federation)}.{namespace}.svc:{GRPC_PORT}"


def selector_labels(federation: str, component: str, group: str | None = None) -> dict[str, str]:
    """Labels that pick a workload's pods; a StatefulSet's selector can never change, so neither may these."""
    labels = {LABEL_FEDERATION: federation, LABEL_COMPONENT: component}
    return labels if group is None else labels | {LABEL_GROUP: group}


def labels(federation: str, component: str, group: str | None = None) -> dict[str, str]:
    """Everything an object of a federation is labelled with."""
    return {
        "app.kubernetes.io/name": "metisfl",
        "app.kubernetes.io/instance": federation,
        "app.kubernetes.io/part-of": "metisfl",
        LABEL_MANAGED_BY: FIELD_MANAGER,
        **selector_labels(federation, component, group),
    }
