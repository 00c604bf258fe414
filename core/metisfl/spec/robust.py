"""Members of `spec.aggregation` for rules that withstand attackers, and how many learners those take."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metisfl.spec import groups
from metisfl.spec.fields import DecimalBelowHalf, PositiveDecimalString, SpecModel
from metisfl.spec.rule import Json, Rule

_Byzantine = Annotated[int, Field(ge=0, le=10_000)]
_Iterations = Annotated[int, Field(ge=1, le=1000)]


class TrimmedMeanSpec(SpecModel):
    """What TrimmedMean leaves out."""

    fraction: DecimalBelowHalf = "0.2"
    """Share of each parameter's values that is left out on either side, rounded up: as large as the share of attackers
    to withstand, and below 0.5."""


class KrumSpec(SpecModel):
    """What Krum withstands."""

    byzantine: _Byzantine = 1
    """Attackers in a round, f. A round needs 2·f + 3 updates."""


class MultiKrumSpec(SpecModel):
    """What MultiKrum withstands, and of how many updates it takes the mean."""

    byzantine: _Byzantine = 1
    """Attackers in a round, f. A round needs 2·f + 3 updates."""

    select: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Updates that are chosen, at most all but f; by default all but f."""


class BulyanSpec(SpecModel):
    """What Bulyan withstands."""

    byzantine: _Byzantine = 1
    """Attackers in a round, f. A round needs 4·f + 3 updates."""


class GeometricMedianSpec(SpecModel):
    """How the geometric median is approached; iterations read no update."""

    iterations: _Iterations = 32
    """Steps of Weiszfeld's algorithm."""

    smoothing: PositiveDecimalString = "0.000001"
    """Distances below this count as this much, so that no update gets an infinite weight."""


class CenteredClipSpec(SpecModel):
    """How CenteredClip moves its centre; iterations read no update."""

    radius: PositiveDecimalString | None = None
    """Updates farther than this from the centre are shortened to it, by their L2 norm; by default the median distance,
    anew in each iteration."""

    iterations: _Iterations = 10
    """From one centre to the next."""


_MEMBERS = {"Krum": "krum", "MultiKrum": "multiKrum", "Bulyan": "bulyan"}
"""Rules that withstand a number of attackers, and where it is set."""

_PER_ATTACKER = {"Krum": 2, "MultiKrum": 2, "Bulyan": 4}

_UNWEIGHTED = ("Median", "TrimmedMean", "Krum", "MultiKrum", "Bulyan", "CenteredClip")
_ROBUST = (*_UNWEIGHTED, "GeometricMedian")

_COUNTED = ("roundRobin", "powerOfChoice")
"""Selections that say how many take part."""


def updates_needed(aggregation: Json) -> int:
    """Updates of a round without which there is no result: 2f + 3 for Krum, 4f + 3 for Bulyan, else 1."""
    rule = aggregation.get("rule", "FedAvg")
    if rule not in _MEMBERS:
        return 1
    byzantine: int = aggregation.get(_MEMBERS[rule], {}).get("byzantine", 1)
    return _PER_ATTACKER[rule] * byzantine + 3


def _participants_suffice(spec: Json) -> bool:
    needed, learners = updates_needed(spec.get("aggregation", {})), groups.total_size(spec)
    selection = spec.get("selection", {})
    share = float(selection["random"]["fraction"]) if "random" in selection else 1.0
    counts = [selection[member]["learners"] for member in _COUNTED if member in selection]
    return share * learners > needed - 1 and all(count >= needed for count in counts)


def _nothing_but_the_rule(aggregation: Json) -> bool:
    optimizer = aggregation.get("serverOptimizer", {}).get("type", "None")
    return aggregation.get("rule") not in _ROBUST or (optimizer == "None" and "clipNorm" not in aggregation)


def _no_weights(aggregation: Json) -> bool:
    return aggregation.get("rule") not in _UNWEIGHTED or aggregation.get("weighting") != "CompletedBatches"


_NEEDED = "".join(
    f"self.aggregation.rule == '{rule}' ? "
    f"{_PER_ATTACKER[rule]} * (has(self.aggregation.{member}) ? self.aggregation.{member}.byzantine : 1) + 3 : "
    for rule, member in _MEMBERS.items()
)
_SUFFICES = " && ".join(
    (
        f"(has(self.selection.random) ? double(self.selection.random.fraction) : 1.0) * double({groups.SUM_OF_SIZES})"
        " > double(needed - 1)",
        *(f"(!has(self.selection.{member}) || self.selection.{member}.learners >= needed)" for member in _COUNTED),
    )
)

RULES: tuple[Rule, ...] = (
    Rule(
        path=("spec", "aggregation"),
        message="serverOptimizer and clipNorm are for rules that take a mean of all updates, and not for "
        + ", ".join(_ROBUST),
        holds=_nothing_but_the_rule,
        cel=f"!(self.rule in {list(_ROBUST)!r}) || (self.serverOptimizer.type == 'None' && !has(self.clipNorm))",
    ),
    Rule(
        path=("spec", "aggregation"),
        message="weighting CompletedBatches is not for "
        + ", ".join(_UNWEIGHTED)
        + ": they count every update once, as attackers could claim any weight",
        holds=_no_weights,
        cel=f"!(self.rule in {list(_UNWEIGHTED)!r}) || self.weighting != 'CompletedBatches'",
    ),
    Rule(
        path=("spec",),
        message="Krum and MultiKrum need 2·byzantine + 3 learners in each round, and Bulyan 4·byzantine + 3: have "
        "more, select more, or withstand fewer attackers",
        holds=_participants_suffice,
        cel=f"[{_NEEDED}1].all(needed, {_SUFFICES})",
    ),
)
