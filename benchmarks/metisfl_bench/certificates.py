"""Certificates of a benchmark: a federation's, and one for each learner of the load."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio

from metisfl.local.certificates import CertificateFolder
from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.tls.authority import new_key
from metisfl.tls.names import server_name
from metisfl.tls.pem import CA_FILE, CERTIFICATE_FILE, KEY_FILE, KeyPair, key_pem
from metisfl.tls.requests import make_request
from metisfl.wire import rpc

UID = "00000000-0000-4000-8000-00000000be4c"
ENROL_SECONDS = 60.0

Options = Iterable[tuple[str, int]]


def prepared(directory: Path, group: str) -> CertificateFolder:
    """Fresh certificates of the benchmark's federation."""
    folder = CertificateFolder(directory / "tls")
    folder.prepare(UID, [group], datetime.now(UTC))
    return folder


async def enrolled_channel(address: str, folder: Path, ordinal: int, options: Options) -> grpc.aio.Channel:
    """A connection with a certificate of its own, for one learner of the group that `folder` belongs to."""
    roots = (folder / CA_FILE).read_bytes()
    bootstrap = KeyPair((folder / CERTIFICATE_FILE).read_bytes(), (folder / KEY_FILE).read_bytes())
    key = new_key()
    request = pb.EnrollRequest(certificate_request=make_request(key), ordinal=ordinal)
    async with _channel(address, roots, bootstrap, options) as channel:
        response = await rpc.ENROLL.stub(channel)(request, timeout=ENROL_SECONDS)
    return _channel(address, roots, KeyPair(response.certificate_chain, key_pem(key)), options)


def _channel(address: str, roots: bytes, pair: KeyPair, options: Options) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(roots, pair.key, pair.certificate)
    named = ("grpc.ssl_target_name_override", server_name(UID))
    return grpc.aio.secure_channel(address, credentials, options=(*options, named))
