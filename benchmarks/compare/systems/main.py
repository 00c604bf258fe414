"""The command line of a system's process: `aggregate WORK` or `round WORK OPTIONS`, the work as JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from benchmarks.compare.children import CompareError, exit_on_sigterm
from benchmarks.compare.output import finish
from benchmarks.compare.work import Work


def main(aggregation: Callable[[Work], list[dict[str, Any]]], rounds: Callable[..., dict[str, Any]]) -> None:
    """Print the results, or why there are none, as one JSON object: {"results": [...]} or {"error": "..."}."""
    exit_on_sigterm()
    mode, work, options = sys.argv[1], Work.from_json(sys.argv[2]), sys.argv[3:]
    try:
        finish({"results": aggregation(work) if mode == "aggregate" else [rounds(work, *options)]})
    except CompareError as error:
        finish({"error": str(error)})
