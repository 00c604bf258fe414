"""The six calls of `metisfl.v1.Controller`, as both sides need them: names, kinds, and how messages are (de)coded.

Generated gRPC stubs would push every payload through protobuf; this table gives the two model streams the frames of
`metisfl.wire.frames` instead. A test holds it against the service's descriptor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire import frames
from metisfl.wire.limits import MAX_MESSAGE_BYTES

SERVICE = "metisfl.v1.Controller"

_COMMON_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *_COMMON_OPTIONS,
    # A second server on the same port would silently take half of the learners.
    ("grpc.so_reuseport", 0),
    # Calls that wait for the event loop to take them: beyond 1,000, gRPC cancels some by chance, and a task sent to
    # thousands of learners brings back as many downloads at once.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
    # Learners ping every 20 s, also while no call is open; anything slower than 10 s is welcome.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *_COMMON_OPTIONS,
    # Load balancers drop connections that are silent for a minute or so.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Retrying is the session's business; gRPC's own backoff would hide a dead controller for two minutes.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


@dataclass(frozen=True)
class Method:
    """One call. `encode_*` make bytes of what is sent, `decode_*` make objects of bytes."""

    name: str
    request_streaming: bool
    response_streaming: bool
    encode_request: Callable[[Any], bytes]
    decode_request: Callable[[bytes], Any]
    encode_response: Callable[[Any], bytes]
    decode_response: Callable[[bytes], Any]

    @property
    def path(self) -> str:
        return f"/{SERVICE}/{self.name}"

    def stub(self, channel: grpc.aio.Channel) -> Any:
        """The callable a client uses, on a grpc.aio channel (a synchronous channel works as well)."""
        opener = getattr(channel, f"{_word(self.request_streaming)}_{_word(self.response_streaming)}")
        return opener(self.path, request_serializer=self.encode_request, response_deserializer=self.decode_response)

    def handler(self, behaviour: Callable[..., Any]) -> grpc.RpcMethodHandler:
        """What a server registers; `behaviour` is the servicer's method."""
        make = getattr(grpc, f"{_word(self.request_streaming)}_{_word(self.response_streaming)}_rpc_method_handler")
        return make(behaviour, request_deserializer=self.decode_request, response_serializer=self.encode_response)


def _word(streaming: bool) -> str:
    return "stream" if streaming else "unary"


def _plain(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


ENROLL = Method("Enroll", False, False, _plain, pb.EnrollRequest.FromString, _plain, pb.EnrollResponse.FromString)
JOIN = Method("Join", False, False, _plain, pb.JoinRequest.FromString, _plain, pb.JoinResponse.FromString)
TASKS = Method("Tasks", True, True, _plain, pb.LearnerMessage.FromString, _plain, pb.Task.FromString)
DOWNLOAD = Method(
    "Download",
    True,
    True,
    _plain,
    pb.DownloadRequest.FromString,
    frames.encode,
    frames.decoder(pb.DownloadResponse),
)
UPLOAD = Method(
    "Upload",
    True,
    True,
    frames.encode,
    frames.decoder(pb.UploadRequest),
    _plain,
    pb.UploadResponse.FromString,
)
LEAVE = Method("Leave", False, False, _plain, pb.LeaveRequest.FromString, _plain, pb.LeaveResponse.FromString)

METHODS: tuple[Method, ...] = (ENROLL, JOIN, TASKS, DOWNLOAD, UPLOAD, LEAVE)


def generic_handler(behaviours: Mapping[str, Callable[..., Any]]) -> grpc.GenericRpcHandler:
    """All six calls for a server, from the servicer's methods by call name."""
    return grpc.method_handlers_generic_handler(
        SERVICE, {method.name: method.handler(behaviours[method.name]) for method in METHODS}
    )
