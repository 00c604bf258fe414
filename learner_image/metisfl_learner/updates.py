"""From a trained model to what is uploaded: the whole model, or what training changed, in the agreed codec."""

from __future__ import annotations

from dataclasses import dataclass, field

from metisfl.proto.v1 import controller_pb2 as pb
from metisfl.wire import frames
from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Buffer, Layout
from metisfl.wire.sections import Sections
from metisfl.wire.transport import Transport
from metisfl_learner.checks import LearnerError
from metisfl_learner.control import ControlVariate
from metisfl_learner.feedback import ErrorFeedback
from metisfl_learner.keeping import ArrayStore, InMemory

_RANGES = {
    Codec.FLOAT32: "it ends where the tensor's own dtype does",
    Codec.FLOAT16: "Float16 ends at 65504; use codec BFloat16, or a smaller training.learningRate",
    Codec.BFLOAT16: "BFloat16 ends at 3.39e38",
    Codec.INT8: "Int8 ends at 3.4e38",
    Codec.TOPK: "TopK ends at 3.4e38",
}


@dataclass(frozen=True)
class Content:
    """Encoded sections, ready to be sent as often as it takes, each with the checksum of the whole of it."""

    kind: pb.UploadKind.ValueType
    sections: Sections
    buffers: tuple[Buffer, ...]
    checksums: tuple[int, ...]

    @classmethod
    def of(cls, kind: pb.UploadKind.ValueType, sections: Sections, *buffers: Buffer) -> Content:
        return cls(kind, sections, buffers, tuple(frames.section_checksum(buffer.data) for buffer in buffers))


@dataclass(frozen=True)
class Stores:
    """Where a learner keeps what it must remember from upload to upload: what TopK left out, float32, and its control
    variate, as bytes."""

    residual: ArrayStore = field(default_factory=InMemory)
    control: ArrayStore = field(default_factory=InMemory)


class UpdateEncoder:
    """Encodes one learner's results."""

    def __init__(self, transport: Transport, layout: Layout, stores: Stores) -> None:
        """Raises CodecError when the codec cannot take this model, LayoutError when it can have no control variates."""
        self.transport = transport
        self.downloads = transport.download_sections(layout)
        self._uploads = transport.upload_sections(layout)
        self._whole = Sections.of(Encoding(layout, Codec.FLOAT32))
        self._feedback = ErrorFeedback(stores.residual) if transport.codec is Codec.TOPK else None
        control = self._uploads.control
        self.control = None if control is None else ControlVariate(control, layout, stores.control)
        self._memories = [memory for memory in (self._feedback, self.control) if memory is not None]

    def whole(self, model: Buffer) -> Content:
        """A whole model, without loss."""
        return Content.of(pb.UPLOAD_KIND_MODEL, self._whole, model)

    def trained(self, task_id: str, model: Buffer, base: Buffer, change: Buffer | None = None) -> Content:
        """The result of training `base` to `model`, and the `change` of the control variate where there is one. Raises
        LearnerError when the codec cannot hold what changed."""
        beside = () if change is None else (change,)
        encoding = self._uploads.model
        if not encoding.updates:
            return Content.of(pb.UPLOAD_KIND_MODEL, self._uploads, model, *beside)
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
        return Content.of(pb.UPLOAD_KIND_UPDATE, self._uploads, content, *beside)

    @property
    def remembers(self) -> bool:
        """Whether anything is done about an upload that was accepted."""
        return bool(self._memories)

    def accepted(self, task_id: str) -> None:
        """The controller has accepted this task's upload. May block on the disk."""
        for memory in self._memories:
            memory.accepted(task_id)

    def forget(self, task_id: str) -> None:
        """This task's upload will not count any more."""
        for memory in self._memories:
            memory.forget(task_id)
