"""Makes each new version ready for the learners, and keeps what their updates are relative to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from metisfl.wire.codecs import Codec, CodecError, Encoding
from metisfl.wire.layout import Buffer
from metisfl_controller.aggregation.engine import Engine
from metisfl_controller.aggregation.kernels import conversions
from metisfl_controller.conductor.progress import Progress
from metisfl_controller.conductor.served import Served
from metisfl_controller.server.downloads import GlobalModel
from metisfl_controller.state.records import StoredVersion


@dataclass(frozen=True)
class Encoded:
    """A version that is not served yet: as it was made, as its learners will receive it, and as it travels."""

    model: Buffer
    content: Buffer
    travelling: GlobalModel


@dataclass(eq=False)
class Serving:
    """The newest version, as it travels and as learners receive it.

    Learners upload differences to the model *as received*, after the download's codec, and the controller adds them to
    that. Where they upload whole models, the base is kept for rules that ask for it.
    """

    engine: Engine
    progress: Progress
    _base: asyncio.Future[Buffer] | None = None
    served: Served = field(init=False)

    def __post_init__(self) -> None:
        self.served = Served(self._read_back)

    async def encode(self, version: int, model: Buffer, control: Buffer | None = None) -> Encoded:
        """Encode a version, while it is being committed. `control`: the control variate that travels beside it. Raises
        CodecError when it cannot travel."""
        sections, transport = self.progress.downloads, self.progress.transport
        assert sections is not None
        encoding = sections.model
        # The round that needed it has closed.
        self._base = None
        content = model
        if not encoding.codec.lossless:
            content = await self.engine.run(
                lambda: conversions.encode(encoding, model, self.progress.allocate(encoding.nbytes))
            )
        # A mean of finite models is finite. A model plus a mean of updates need not be, nor one in a narrower form.
        if transport.updates and (flaw := await self.engine.flaw(encoding, content)):
            raise CodecError(_cannot_travel(encoding, flaw))
        contents = (content,) if control is None else (content, control)
        return Encoded(model, content, GlobalModel(version, sections, contents, transport.packer))

    def begin(self, stored: StoredVersion, version: Encoded, *, keep_base: bool) -> None:
        """Serve it from now on. Its `model` must be in its file: the base may take its place. `keep_base`: also where
        learners upload whole models."""
        sections, transport = self.progress.downloads, self.progress.transport
        assert sections is not None
        encoding = sections.model
        if keep_base or transport.updates:
            model = None if encoding.codec.lossless else version.model
            self._base = self.engine.run(lambda: conversions.decode(encoding, version.content, model))
        self.progress.latest = stored
        self.served.add(version.travelling)

    async def _read_back(self, version: int) -> GlobalModel | None:
        """A version as it travels, from its file: the same bytes as before."""
        sections, transport = self.progress.downloads, self.progress.transport
        model = await self.progress.read_mapped(version)
        if model is None or sections is None:
            return None
        encoding, content = sections.model, model
        if not encoding.codec.lossless:
            content = self.progress.allocate_mapped(encoding.nbytes)
            await self.engine.run(lambda: conversions.encode(encoding, model, content))
        contents = [content]
        if sections.control is not None:
            # Nobody trains from an older version: it is evaluated, which needs no control variate.
            contents.append(self.progress.allocate_mapped(sections.control.nbytes))
        return GlobalModel(version, sections, contents, transport.packer)

    async def base(self) -> Buffer | None:
        """What this version's learners train from; None where nobody needs it."""
        return None if self._base is None else await self._base


def _cannot_travel(encoding: Encoding, flaw: str) -> str:
    hint = "have the learners' weights diverged?"
    if encoding.codec is Codec.FLOAT16:
        hint = "it ends at ±65504, so choose BFloat16 or Float32 in spec.transport.codec"
    return f"the model cannot travel in {encoding.codec}: {flaw} there; {hint}"
