"""From a trained model to what is uploaded: the whole model, or what training changed, in the agreed codec."""

from __future__ import annotations

from dataclasses import dataclass

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire import frames
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Buffer, Layout
from metisfl.wire.transport import Transport
from metisfl_learner.checks import LearnerError
from metisfl_learner.feedback import ErrorFeedback, ResidualStore

_RANGES = {
    Codec.FLOAT32: "it ends where the tensor's own dtype does",
    Codec.FLOAT16: "Float16 ends at 65504; use codec BFloat16, or a smaller training.learningRate",
    Codec.BFLOAT16: "BFloat16 ends at 3.39e38",
    Codec.INT8: "Int8 ends at 3.4e38",
    Codec.TOPK: "TopK ends at 3.4e38",
}


@dataclass(frozen=True)
class Content:
    """Encoded bytes, ready to be sent as often as it takes. `checksum` is the section's, of the whole `buffer`."""

    kind: pb.UploadKind.ValueType
    encoding: Encoding
    buffer: Buffer
    checksum: int


class UpdateEncoder:
    """Encodes one learner's results. `residuals` is where TopK keeps what it leaves out."""

    def __init__(self, transport: Transport, layout: Layout, residuals: ResidualStore) -> None:
        """Raises CodecError when the codec cannot take this model."""
        self.transport = transport
        self.download = transport.download(layout)
        self._upload = transport.upload(layout)
        self._whole = Encoding(layout, Codec.FLOAT32)
        self._feedback = ErrorFeedback(residuals) if transport.codec is Codec.TOPK else None

    def whole(self, model: Buffer) -> Content:
        """A whole model, without loss."""
        return _content(pb.UPLOAD_KIND_MODEL, self._whole, model)

    def trained(self, task_id: str, model: Buffer, base: Buffer) -> Content:
        """The result of training `base` to `model`. Raises LearnerError when the codec cannot hold what changed."""
        encoding = self._upload
        if not encoding.updates:
            return self.whole(model)
        if self._feedback is not None:
            content = self._feedback.encode(task_id, encoding, model, base)
        else:
            content = encoding.encode(model, base=base)
        flaw = encoding.flaw(content)
        if flaw is not None:
            self.forget(task_id)
            raise LearnerError(
                f"train() changed the model by more than codec {encoding.codec} can hold: {flaw} once encoded; "
                f"{_RANGES[encoding.codec]}"
            )
        return _content(pb.UPLOAD_KIND_UPDATE, encoding, content)

    @property
    def remembers(self) -> bool:
        """Whether anything is done about an upload that was accepted."""
        return self._feedback is not None

    def accepted(self, task_id: str) -> None:
        """The controller has accepted this task's upload. May block on the disk."""
        if self._feedback is not None:
            self._feedback.accepted(task_id)

    def forget(self, task_id: str) -> None:
        """This task's upload will not count any more."""
        if self._feedback is not None:
            self._feedback.forget(task_id)


def _content(kind: pb.UploadKind.ValueType, encoding: Encoding, content: Buffer) -> Content:
    return Content(kind, encoding, content, frames.section_checksum(content.data))
