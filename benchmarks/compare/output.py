"""How a system's process tells its progress and its result. Standard library only."""

from __future__ import annotations

import json
import sys
from typing import Any


def tell(text: str) -> None:
    """Progress, for the person who waits."""
    print(f"    {text}", file=sys.stderr, flush=True)


def finish(result: Any) -> None:
    """The result: one line of JSON, the last that is written to standard output."""
    print(json.dumps(result), flush=True)
