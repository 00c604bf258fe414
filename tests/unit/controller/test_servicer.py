"""Calls of learners that lose their leases while they are answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Layout
from metisfl.wire.limits import CHUNK_BYTES
from metisfl.wire.sections import Sections
from metisfl_controller.security.gate import OpenGate
from metisfl_controller.server.downloads import GlobalModel
from metisfl_controller.server.servicer import Servicer

LAYOUT = Layout.of({"w": np.zeros(CHUNK_BYTES, np.float32)})


class AbortedError(Exception):
    pass


class Context:
    """Of a learner that loses its lease as soon as it has this many messages."""

    def __init__(self, learner: SimpleNamespace, messages: int) -> None:
        self._learner, self._left = learner, messages

    async def write(self, message: Any) -> None:
        assert self._left > 0, "a message came after the lease had ended"
        self._left -= 1
        if not self._left:
            self._learner.lease = ""

    async def abort(self, code: grpc.StatusCode, words: str) -> None:
        raise AbortedError(code, words)


async def test_a_download_under_way_ends_with_the_lease() -> None:
    """As that of a learner that is revoked does."""
    learner = SimpleNamespace(id="a-0", lease="mine")
    encoding = Encoding(LAYOUT, Codec.FLOAT32)
    model = GlobalModel(1, Sections.of(encoding), [LAYOUT.allocate()])

    async def served(version: int) -> GlobalModel:
        assert version == 1
        return model

    conductor: Any = SimpleNamespace(
        registry=SimpleNamespace(holder=lambda lease, now: learner),
        clock=lambda: 0.0,
        served=SimpleNamespace(of=served),
        metrics=SimpleNamespace(sent=lambda count: None),
    )
    audit: Any = None
    servicer = Servicer(conductor, OpenGate(), audit)
    request = pb.DownloadRequest(lease_id="mine", model_version=1, codec=encoding.codec.number)

    async def requests() -> AsyncIterator[pb.DownloadRequest]:
        yield request

    context: Any = Context(learner, messages=2)
    with pytest.raises(AbortedError) as error:
        await servicer.download(requests(), context)
    assert error.value.args[0] is grpc.StatusCode.UNAUTHENTICATED
