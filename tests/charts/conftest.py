from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python import Chart

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def chart() -> Iterator[Chart]:
    with Chart.load(ROOT / "charts" / "metisfl") as loaded:
        yield loaded


@pytest.fixture(scope="session")
def render(chart: Chart) -> Callable[..., list[dict[str, Any]]]:
    """Every object of the chart for some values, in a release called metisfl."""

    def rendered(name: str = "metisfl", **values: Any) -> list[dict[str, Any]]:
        texts = chart.render(values or None, name=name, namespace="metisfl-system")
        yamls = (text for path, text in texts.items() if not path.endswith("NOTES.txt"))
        return [found for text in yamls for found in yaml.safe_load_all(text) if found]

    return rendered
