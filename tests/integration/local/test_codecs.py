"""The digits example in every codec: as accurate as in Float32, for the bytes that the codec promises."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest

from metisfl.local.record import RunRecord

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "federation.yaml"
ROUNDS = 25


class Runs:
    """Runs the example once for each set of options."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @functools.cache  # noqa: B019 - it lives as long as the module's tests
    def __call__(self, *settings: str) -> RunRecord:
        output = self._folder / ("-".join(settings).replace("/", "-") or "default")
        # A target out of reach: every run has the same rounds.
        overrides = [f"termination.maxRounds={ROUNDS}", "termination.targetMetric.atLeast=1", *settings]
        done = subprocess.run(
            [sys.executable, "-m", "metisfl", "run", str(DIGITS), "--output", str(output), "--no-progress"]
            + [part for override in overrides for part in ("--set", override)],
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        return RunRecord.model_validate_json((output / "summary.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("codecs"))


def best_accuracy(record: RunRecord) -> float:
    return max(metric.value for entry in record.rounds for metric in entry.metrics if metric.name == "accuracy")


def bytes_moved(record: RunRecord) -> tuple[int, int]:
    """What a round sent to and received from the learners; the first has no other transfers beside its own."""
    assert len(record.rounds) == ROUNDS
    return record.rounds[0].bytes_sent, record.rounds[0].bytes_received


# The first run of all may have to compile the kernels.
@pytest.mark.timeout(450)
@pytest.mark.parametrize(
    ("settings", "down", "up"),
    [
        pytest.param(["transport.codec=Int8"], 0.30, 0.30, id="Int8"),
        pytest.param(["transport.codec=BFloat16"], 0.55, 0.55, id="BFloat16", marks=pytest.mark.slow),
        pytest.param(["transport.codec=Float16"], 0.55, 0.55, id="Float16", marks=pytest.mark.slow),
        pytest.param(["transport.codec=TopK"], 1.0, 0.22, id="TopK", marks=pytest.mark.slow),
        pytest.param(["transport.compression.type=Zstd"], 0.97, 0.97, id="Zstd", marks=pytest.mark.slow),
    ],
)
def test_a_codec_costs_little_accuracy_and_saves_its_bytes(
    run: Runs, settings: list[str], down: float, up: float
) -> None:
    plain, coded = run(), run(*settings)
    assert best_accuracy(coded) >= best_accuracy(plain) - 0.01
    sent, received = bytes_moved(plain)
    coded_sent, coded_received = bytes_moved(coded)
    assert coded_sent <= down * sent
    assert coded_received <= up * received
