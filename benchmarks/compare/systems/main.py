"""The command line of a system's process: `aggregate WORK` or `round WORK`, the work as JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from benchmarks.compare.children import CompareError
from benchmarks.compare.output import finish
from benchmarks.compare.work import Work


def main(aggregation: Callable[[Work], list[dict[str, Any]]], rounds: Callable[[Work], dict[str, Any]]) -> None:
    """Print the results, or why there are none, as one JSON object: {"results": [...]} or {"error": "..."}."""
    work = Work.from_json(sys.argv[2])
    try:
        finish({"results": aggregation(work) if sys.argv[1] == "aggregate" else [rounds(work)]})
    except CompareError as error:
        finish({"error": str(error)})
