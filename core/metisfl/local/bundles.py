"""Bundles of a run's external groups: `metisfl run` starts no learners for these, somebody joins with them."""

from __future__ import annotations

from pathlib import Path

from metisfl.bundle import BundleSpec, BundleTls, make_bundle, write_bundle
from metisfl.local.certificates import CertificateFolder
from metisfl.local.folder import RunFolder
from metisfl.spec import Federation
from metisfl.tls.pem import CA_FILE, CERTIFICATE_FILE, KEY_FILE


def write_bundles(federation: Federation, folder: RunFolder, uid: str, endpoint: str) -> dict[str, Path]:
    """One file for each external group, in the run's folder; by group. `endpoint` is where the controller listens."""
    files, tls = {}, federation.spec.security.tls
    for group in federation.spec.learner_groups:
        if not group.external or group.max_learners is None:
            continue
        spec = BundleSpec(
            federation=federation.metadata.name,
            group=group.name,
            max_learners=group.max_learners,
            endpoint=endpoint,
            entrypoint=federation.spec.learner.entrypoint,
            tls=_tls(folder.certificates, group.name, tls.server_name(uid)) if tls.enabled else None,
        )
        files[group.name] = folder.bundle(group.name)
        files[group.name].parent.mkdir(exist_ok=True)
        write_bundle(files[group.name], make_bundle(spec))
    return files


def _tls(certificates: CertificateFolder, group: str, server_name: str) -> BundleTls:
    folder = certificates.learners(group)
    ca, certificate, key = ((folder / name).read_text() for name in (CA_FILE, CERTIFICATE_FILE, KEY_FILE))
    return BundleTls(ca=ca, certificate=certificate, key=key, server_name=server_name)
