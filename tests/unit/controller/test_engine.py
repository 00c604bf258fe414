"""The aggregation thread: order, errors, and that nothing a caller does can end it."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from metisfl.wire.codecs import Codec, Encoding
from metisfl.wire.layout import Buffer, Layout
from metisfl_controller.aggregation import engine as engine_module
from metisfl_controller.aggregation.engine import Engine
from metisfl_controller.aggregation.rule import Rule, Staged
from metisfl_controller.aggregation.rules.fedavg import FedAvg

LAYOUT = Layout.of({"a": np.zeros(4, np.float32), "empty": np.zeros(0), "n": np.zeros((), np.int64), "b": np.zeros(3)})
ENCODING = Encoding(LAYOUT, Codec.FLOAT32)
WAIT_SECONDS = 30


class Recorder(Rule):
    """A rule that writes down what it is asked, and can be held up."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.error: Exception | None = None

    def reset(self) -> None:
        self.calls.append("reset")

    def fold(self, uploads: Sequence[Staged], base: Buffer | None = None) -> None:
        self.entered.set()
        assert self.gate.wait(WAIT_SECONDS)
        self.calls.append([upload.weight for upload in uploads])
        if self.error:
            raise self.error

    def finish(self, base: Buffer | None, last: Sequence[Staged]) -> Buffer:
        self.calls.append(("finish", [upload.weight for upload in last]))
        if self.error:
            raise self.error
        return LAYOUT.allocate() if base is None else base


@pytest.fixture
async def engine(kernels: object) -> AsyncIterator[Engine]:
    engine = Engine(threads=2)
    await asyncio.wait_for(engine.ready(), WAIT_SECONDS)
    yield engine
    await asyncio.wait_for(asyncio.to_thread(engine.close), WAIT_SECONDS)


def model(value: float) -> Buffer:
    return LAYOUT.pack(
        {
            "a": np.full(4, value, np.float32),
            "empty": np.zeros(0),
            "n": np.array(int(value)),
            "b": np.full(3, float(value)),
        }
    )


async def test_a_round_is_the_weighted_mean(engine: Engine) -> None:
    await engine.begin(FedAvg(ENCODING))
    folds = [engine.fold(Staged(model(k), k)) for k in range(1, 21)]
    result = LAYOUT.views(await engine.finish())
    await asyncio.gather(*folds)
    expected = sum(k * k for k in range(1, 21)) / sum(range(1, 21))
    assert result["a"].tolist() == [np.float32(expected)] * 4
    assert result["n"] == round(expected)
    assert engine.seconds > 0


async def test_rounds_do_not_mix(engine: Engine) -> None:
    rule = FedAvg(ENCODING)
    means = []
    for value in (1.0, 5.0):
        begun = engine.begin(rule)
        folded = engine.fold(Staged(model(value), 2.0))
        means.append(LAYOUT.views(await engine.finish())["b"].tolist())
        await asyncio.gather(begun, folded)
    assert means == [[1.0] * 3, [5.0] * 3]


async def test_waiting_folds_share_a_pass_and_the_last_ones_that_of_the_end(engine: Engine) -> None:
    rule = Recorder()
    rule.gate.clear()
    futures = [engine.begin(rule), engine.fold(Staged(model(1), 0))]
    # The rest queues up behind the first fold.
    assert await asyncio.to_thread(rule.entered.wait, WAIT_SECONDS)
    futures += [engine.fold(Staged(model(1), weight)) for weight in range(1, 12)]
    futures += [
        engine.finish(),
        engine.begin(rule),
        engine.fold(Staged(model(1), 99)),
        engine.begin(rule),
        engine.finish(),
    ]
    rule.gate.set()
    await asyncio.wait_for(asyncio.gather(*futures), WAIT_SECONDS)
    folds = [[0], [1, 2, 3, 4, 5, 6, 7, 8], ("finish", [9, 10, 11]), "reset", [99]]
    assert rule.calls == ["reset", *folds, "reset", ("finish", [])]


async def test_a_fold_waits_for_company_while_checks_do_not_wait(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "MAX_PATIENCE_SECONDS", WAIT_SECONDS)
    rule = Recorder()
    rule.gate.clear()
    first = [engine.begin(rule), engine.fold(Staged(model(1), 1))]
    assert await asyncio.to_thread(rule.entered.wait, WAIT_SECONDS)
    # A fold that takes this long makes the next one wait as long.
    await asyncio.sleep(0.5)
    rule.gate.set()
    await asyncio.gather(*first)
    second = engine.fold(Staged(model(1), 2))
    assert await engine.flaw(ENCODING, model(1)) is None
    third = engine.fold(Staged(model(1), 3))
    await asyncio.wait_for(asyncio.gather(second, third), WAIT_SECONDS)
    assert rule.calls == ["reset", [1], [2, 3]]


async def test_a_base_reaches_the_rule(engine: Engine) -> None:
    base = model(7)
    await engine.begin(Recorder(), base)
    assert await engine.finish() is base


async def test_the_last_uploads_come_after_those_that_wait(engine: Engine) -> None:
    rule = Recorder()
    rule.gate.clear()
    futures = [engine.begin(rule), engine.fold(Staged(model(1), 0))]
    assert await asyncio.to_thread(rule.entered.wait, WAIT_SECONDS)
    futures += [engine.fold(Staged(model(1), 1)), engine.finish([Staged(model(1), weight) for weight in (2, 3)])]
    rule.gate.set()
    await asyncio.wait_for(asyncio.gather(*futures), WAIT_SECONDS)
    assert rule.calls == ["reset", [0], ("finish", [1, 2, 3])]


async def test_a_rule_says_how_many_uploads_a_pass_takes(engine: Engine) -> None:
    rule = Recorder()
    rule.models_per_pass = 2
    rule.gate.clear()
    futures = [engine.begin(rule), engine.fold(Staged(model(1), 0))]
    assert await asyncio.to_thread(rule.entered.wait, WAIT_SECONDS)
    futures += [engine.fold(Staged(model(1), weight)) for weight in range(1, 6)]
    futures.append(engine.finish())
    rule.gate.set()
    await asyncio.wait_for(asyncio.gather(*futures), WAIT_SECONDS)
    assert rule.calls == ["reset", [0], [1, 2], [3, 4], ("finish", [5])]


async def test_errors_reach_who_waits_and_the_thread_goes_on(engine: Engine) -> None:
    rule = Recorder()
    rule.error = MemoryError("no room")
    await engine.begin(rule)
    with pytest.raises(MemoryError, match="no room"):
        await engine.fold(Staged(model(1), 1))
    last, finish = engine.fold(Staged(model(1), 2)), engine.finish()
    with pytest.raises(MemoryError, match="no room"):
        await finish
    # Its memory is free all the same.
    await last
    rule.error = None
    await engine.fold(Staged(model(1), 2))
    await engine.begin(FedAvg(ENCODING))
    with pytest.raises(ValueError, match="nothing to average"):
        await engine.finish()


async def test_who_stops_waiting_does_not_stop_the_engine(engine: Engine) -> None:
    """A learner that hangs up while its update is being checked cancels the future that stands for the check."""
    rule = Recorder()
    rule.gate.clear()
    begun, held_up = engine.begin(rule), engine.fold(Staged(model(1), 1))
    assert await asyncio.to_thread(rule.entered.wait, WAIT_SECONDS)
    abandoned = [engine.flaw(ENCODING, model(1)), engine.fold(Staged(model(1), 2)), engine.finish()]
    for future in (*abandoned, held_up):
        future.cancel()
    await asyncio.sleep(0)  # Cancelling travels to the queued work by a callback.
    rule.gate.set()
    await begun
    assert await asyncio.wait_for(engine.flaw(ENCODING, model(1)), WAIT_SECONDS) is None
    # What nobody waits for is not done; what had begun is.
    assert rule.calls == ["reset", [1]]


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
async def test_the_tensor_with_the_bad_value_is_named(engine: Engine, name: str, bad: float) -> None:
    spoiled = model(1)
    LAYOUT.views(spoiled)[name][-1] = bad
    assert await engine.flaw(ENCODING, spoiled) == f"tensor '{name}' holds NaN or infinity"
    assert await engine.flaw(ENCODING, model(3)) is None


async def test_closing_finishes_what_is_queued(kernels: object) -> None:
    engine = Engine(threads=1)
    rule = Recorder()
    futures = [engine.begin(rule), *(engine.fold(Staged(model(1), weight)) for weight in range(20)), engine.finish()]
    await asyncio.to_thread(engine.close)
    await asyncio.wait_for(asyncio.gather(*futures), WAIT_SECONDS)
    *folds, (_, last) = rule.calls[1:]
    assert [weight for weights in (*folds, last) for weight in weights] == list(range(20))


async def test_an_idle_engine_refers_to_nothing_of_model_size(engine: Engine) -> None:
    """A round lasts long, and memory is planned without a second copy of anything."""
    encoding = Encoding(LAYOUT, Codec.BFLOAT16, updates=True)
    base, content = model(1), encoding.encode(model(2))
    await engine.begin(FedAvg(encoding), base)
    folded = engine.fold(Staged(content, 1.0))
    finished = await engine.finish()
    await folded
    held = [weakref.ref(each) for each in (base, content, finished)]
    del base, content, finished, folded
    async with asyncio.timeout(WAIT_SECONDS):
        while any(each() is not None for each in held):  # noqa: ASYNC110 - the thread lets go of them when it idles
            await asyncio.sleep(0.001)
