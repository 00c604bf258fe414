"""The report's numbers, words and page."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from metisfl.api import FederationState, MetricValue
from metisfl.local.record import RunRecord, installed_versions
from metisfl.local.report import write_report
from metisfl.local.report.charts import metric_chart
from metisfl.local.report.page import describe_bars, describe_curves, figures, learner_table, round_table, verdict
from metisfl.local.report.render import render
from metisfl.local.report.series import MAX_BARS, Curves, Points, curves, phase_bars
from tests.unit.local.samples import learner, record, round_document, rounds


def with_rounds(entries: list[object]) -> RunRecord:
    return record(1).model_copy(update={"rounds": entries, "models": []})


def test_curves_pair_what_learners_report_with_what_is_held_out() -> None:
    entries = [
        round_document(1, {"accuracy": 0.5, "loss": 2.0}, {"train_loss": 1.5}),
        round_document(2, {"accuracy": 0.6, "loss": 1.0}, {"train_loss": 0.5}),
    ]
    bare = record(1)
    document = bare.document.model_copy(update={"metrics": []})
    found = curves(bare.model_copy(update={"rounds": entries, "models": [], "document": document}))
    assert found == [
        Curves("accuracy", None, Points((1, 2), (0.5, 0.6))),
        Curves("loss", Points((1, 2), (1.5, 0.5)), Points((1, 2), (2.0, 1.0))),
    ]


def test_the_initial_model_is_part_of_the_curve_where_it_was_evaluated() -> None:
    accuracy = curves(record(3))[0]
    assert accuracy.held_out is not None
    assert accuracy.held_out.x == (0, 1, 2, 3)
    assert accuracy.held_out.y[0] == 0.1


def test_values_that_are_not_finite_are_left_out() -> None:
    entries = [round_document(1, {"loss": math.inf}, {}), round_document(2, {"loss": math.nan}, {})]
    bare = with_rounds(list(entries))
    document = bare.document.model_copy(update={"metrics": []})
    assert curves(bare.model_copy(update={"document": document})) == []


def test_phases_add_up_to_the_rounds_time() -> None:
    bars = phase_bars(rounds(3))
    assert list(bars.phases) == ["train", "aggregate", "commit", "other"]
    assert sum(seconds[0] for seconds in bars.phases.values()) == pytest.approx(2.0)


@pytest.mark.parametrize("count", [0, 1, MAX_BARS, MAX_BARS + 1, 1000])
def test_bars_stay_few_and_keep_the_mean(count: int) -> None:
    bars = phase_bars(rounds(count))
    assert len(bars.first_rounds) <= MAX_BARS
    if count:
        assert bars.phases["train"] == pytest.approx([1.6] * len(bars.first_rounds))
        assert bars.first_rounds[0] == 1


def test_words_for_those_who_do_not_see_the_drawings() -> None:
    accuracy = curves(record(3))[0]
    assert describe_curves(accuracy) == "held-out accuracy from 0.1 at round 0 to 0.8286 at round 3"
    assert describe_bars(phase_bars(rounds(3))).startswith("in the median round: train 1.60 s, aggregate 200 ms")


def test_figures_lead_with_the_metrics() -> None:
    assert [(figure.label, figure.value) for figure in figures(record(12))][:3] == [
        ("accuracy", "0.952"),
        ("loss", "0.2383"),
        ("rounds", "12 of 20"),
    ]


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (FederationState.COMPLETE, "complete"),
        (FederationState.FAILED, "failed"),
        (FederationState.TRAINING, "unfinished"),
    ],
)
def test_the_verdict_is_one_word(state: FederationState, word: str) -> None:
    assert verdict(record(2, state))[0] == word


def test_a_failed_federation_says_what_its_learners_said() -> None:
    failed = record(2, FederationState.FAILED)
    lost = [learner("silo-a-0", "Lost", "its code raised ValueError")]
    document = failed.document.model_copy(update={"learners": lost})
    table = learner_table(failed.model_copy(update={"document": document}))
    assert table.columns[-1] == "remark"
    assert table.rows[0][-1] == "its code raised ValueError"
    assert table.rows[0][-2] == "1"


def test_the_round_table_is_bounded() -> None:
    assert len(round_table(record(1200)).rows) == 500
    assert round_table(record(1200)).rows[-1][0] == "1200"


class Page(HTMLParser):
    """Collects what could reach out of the page, and the nesting of its elements."""

    VOID = frozenset({"meta", "link", "br", "path", "use", "rect", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_reaches_for_nothing() -> None:
    page = Page(render(record()))
    assert page.open == []
    assert page.tags.count("svg") == 4
    assert "script" not in page.tags
    assert all(reference.startswith(("#", "data:")) for reference in page.references)


def test_ids_in_the_page_are_unique() -> None:
    found = re.findall(r'\bid="([^"]+)"', render(record()))
    assert len(found) == len(set(found))


def test_drawings_take_their_colours_from_the_page() -> None:
    drawing = metric_chart(Curves("accuracy", None, Points((1, 2), (0.1, 0.9))), 0.97)
    assert "var(--series-1)" in drawing
    assert "target 0.97" in drawing
    assert "#0" not in re.sub(r"#[a-z][0-9a-z]{10}", "", drawing.replace("xlink:href", "")), "a colour was left over"


def test_what_learners_say_is_text_and_not_markup() -> None:
    failed = record(2, FederationState.FAILED, message="<script>alert(1)</script>")
    metric = MetricValue(name="a<b", value=1.0, version=2, examples=1)
    first = failed.rounds[0].model_copy(update={"train_metrics": {"$x^2$ <b>": 1.0}, "metrics": [metric]})
    page = render(failed.model_copy(update={"rounds": [first]}))
    assert "<script>" not in page
    assert "<b>" not in page


@pytest.mark.parametrize("count", [0, 1, 2, 400])
def test_any_number_of_rounds_gives_a_page(count: int) -> None:
    page = Page(render(record(count, FederationState.FAILED)))
    assert page.open == []


def test_the_report_is_written_as_utf8(tmp_path: Path) -> None:
    write_report(record(), tmp_path / "report.html")
    assert "≥ 0.97" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_record_survives_its_file() -> None:
    original = record()
    assert RunRecord.model_validate_json(original.model_dump_json(by_alias=True)) == original


def test_versions_name_what_decides_the_numbers() -> None:
    assert {"metisfl", "Python", "numpy"} <= installed_versions().keys()
