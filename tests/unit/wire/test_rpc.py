"""The method table against the service that controller.proto describes."""

from __future__ import annotations

import grpc
import pytest

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire import frames, rpc
from metisfl.wire.rpc import Method

SERVICE = pb.DESCRIPTOR.services_by_name["Controller"]


def test_the_table_has_exactly_the_calls_of_the_service() -> None:
    assert SERVICE.full_name == rpc.SERVICE
    assert [method.name for method in rpc.METHODS] == [method.name for method in SERVICE.methods]


@pytest.mark.parametrize("method", rpc.METHODS, ids=lambda method: method.name)
def test_streaming_and_messages_are_those_of_the_service(method: Method) -> None:
    described = SERVICE.methods_by_name[method.name]
    assert method.path == f"/{SERVICE.full_name}/{described.name}"
    assert method.request_streaming == described.client_streaming
    assert method.response_streaming == described.server_streaming
    request = getattr(pb, described.input_type.name)()
    response = getattr(pb, described.output_type.name)()
    for message, encode, decode in (
        (request, method.encode_request, method.decode_request),
        (response, method.encode_response, method.decode_response),
    ):
        decoded = decode(encode(message))
        assert type(decoded) is type(message)
        assert decoded == message


@pytest.mark.parametrize("method", rpc.METHODS, ids=lambda method: method.name)
def test_handlers_are_of_the_right_kind(method: Method) -> None:
    def behaviour() -> None: ...

    handler = method.handler(behaviour)
    assert (handler.request_streaming, handler.response_streaming) == (
        method.request_streaming,
        method.response_streaming,
    )
    filled = [handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream]
    assert [call for call in filled if call is not None] == [behaviour]


def test_model_streams_carry_ready_made_chunks_both_ways() -> None:
    wire = frames.encode_chunk(0, 8, memoryview(b"abc"))
    assert rpc.DOWNLOAD.encode_response(wire) is wire
    assert rpc.UPLOAD.encode_request(wire) is wire
    for decode in (rpc.DOWNLOAD.decode_response, rpc.UPLOAD.decode_request):
        frame = decode(wire)
        assert (frame.section, frame.offset, bytes(frame.data)) == (0, 8, b"abc")


def test_a_server_needs_every_behaviour() -> None:
    behaviours = {method.name: lambda: None for method in rpc.METHODS}
    assert isinstance(rpc.generic_handler(behaviours), grpc.GenericRpcHandler)
    behaviours.pop("Leave")
    with pytest.raises(KeyError, match="Leave"):
        rpc.generic_handler(behaviours)


def test_keepalive_pings_of_learners_are_allowed_by_the_server() -> None:
    """A client that pings more often than the server allows is thrown out with ENHANCE_YOUR_CALM."""
    server, channel = dict(rpc.SERVER_OPTIONS), dict(rpc.CHANNEL_OPTIONS)
    assert channel["grpc.keepalive_time_ms"] > server["grpc.http2.min_ping_interval_without_data_ms"]
    assert server["grpc.keepalive_permit_without_calls"] == 1
