"""What a Federation asks of the transport, in the words of the wire."""

from __future__ import annotations

from metisfl.spec.transport import TransportSpec
from metisfl.wire.codecs import Codec
from metisfl.wire.compression import Compression
from metisfl.wire.transport import Transport


def transport_of(spec: TransportSpec, *, updates: bool = False, control: bool = False) -> Transport:
    """`updates`: the protocol or the rule needs differences to the model as received, whatever the codec. `control`:
    the rule needs control variates."""
    return Transport(
        codec=Codec(spec.codec),
        fraction=float(spec.top_k_or_default.fraction),
        compression=Compression(spec.compression.type),
        level=spec.compression.level_or_default,
        updates=updates,
        control=control,
    )
