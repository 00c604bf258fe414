"""Makes a site's bundle of what a cluster holds for it."""

from __future__ import annotations

from datetime import UTC, datetime

from metisfl.bundle import Bundle, BundleSpec, BundleTls, make_bundle
from metisfl.cluster.access import Cluster, ClusterError, Json, RefusedError
from metisfl.cluster.controller import content
from metisfl.cluster.federations import federation
from metisfl.cluster.names import bootstrap_secret
from metisfl.spec import LearnerGroup, SpecError, parse_federation
from metisfl.spec.expose import ExposeType
from metisfl.tls.pem import CA_FILE, CERTIFICATE_FILE, KEY_FILE, KeyPair, PemError, flaw, read_certificates


def bundle_of(cluster: Cluster, name: str, group_name: str | None, endpoint: str | None) -> Bundle:
    """The bundle for an external group; `group_name` None: the only one, `endpoint` None: where the status says.

    Raises ClusterError when there is no such group or it is not external, when the controller is not exposed, or when
    the group's certificate is not there or may not be read.
    """
    found = federation(cluster, name)
    try:
        spec = parse_federation(found).spec
    except SpecError as error:
        raise ClusterError(f"Federation '{name}' is not valid: {error}") from error
    group = _group(name, spec.learner_groups, group_name)
    assert group.max_learners is not None
    tls = spec.security.tls
    return make_bundle(
        BundleSpec(
            federation=name,
            group=group.name,
            max_learners=group.max_learners,
            endpoint=endpoint or _endpoint(found, name),
            entrypoint=spec.learner.entrypoint,
            tls=_tls(cluster, name, group.name, tls.server_name(found["metadata"]["uid"])) if tls.enabled else None,
        )
    )


def _group(federation_name: str, groups: list[LearnerGroup], wanted: str | None) -> LearnerGroup:
    external = [group for group in groups if group.external]
    names = ", ".join(group.name for group in external) or "none"
    if wanted is None and len(external) == 1:
        return external[0]
    for group in external:
        if group.name == wanted:
            return group
    if wanted is None:
        raise ClusterError(f"say with --group which external group the bundle is for; '{federation_name}' has: {names}")
    raise ClusterError(f"'{federation_name}' has no external group '{wanted}'; its external groups: {names}")


def _endpoint(found: Json, name: str) -> str:
    expose = found["spec"].get("controller", {}).get("expose", {})
    endpoint: str = found.get("status", {}).get("endpoint") or ""
    if expose.get("type", ExposeType.CLUSTER_IP) == ExposeType.CLUSTER_IP and "host" not in expose:
        raise ClusterError(
            f"the controller of '{name}' is reached inside of the cluster only: set spec.controller.expose, or say "
            "with --endpoint HOST:PORT what the site is to dial"
        )
    if not endpoint or endpoint.endswith(".svc:50051"):
        raise ClusterError(
            f"the address of '{name}' is not known yet: wait until status.endpoint has it, or say it with --endpoint"
        )
    return endpoint


def _tls(cluster: Cluster, name: str, group: str, server_name: str) -> BundleTls:
    secret_name = bootstrap_secret(name, group)
    try:
        secret = cluster.get(f"/api/v1/namespaces/{cluster.namespace}/secrets/{secret_name}")
    except RefusedError as error:
        if error.code == 404:
            raise ClusterError(f"Secret {secret_name} is not there yet: the operator makes it, try again") from error
        raise ClusterError(f"a bundle holds Secret {secret_name}, which you may not read: {error}") from error
    ca, certificate, key = (content(secret, entry) for entry in (CA_FILE, CERTIFICATE_FILE, KEY_FILE))
    if not (ca and certificate and key):
        raise ClusterError(f"Secret {secret_name} does not hold {CA_FILE}, {CERTIFICATE_FILE} and {KEY_FILE}")
    if reason := _flaw(ca, certificate, key):
        raise ClusterError(
            f"Secret {secret_name} is of no use: {reason}; the operator renews it, see `metisfl describe`"
        )
    return BundleTls(ca=ca, certificate=certificate, key=key, server_name=server_name)


def _flaw(ca: str, certificate: str, key: str) -> str | None:
    """What a learner that enrols with these would be told."""
    try:
        pair = KeyPair(certificate.encode(), key.encode())
        pair.authority()
        return flaw(pair.certificates, read_certificates(ca.encode()), datetime.now(UTC))
    except PemError as error:
        return str(error)
