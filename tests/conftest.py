"""How tests run: property tests, and all of them side by side.

Property tests have no time limit each, as machines are busy. In CI they draw the same examples every time: a fresh
machine must not fail by the luck of a draw on a change that has nothing to do with it; developers' runs draw anew each
time, and what they find becomes an example of its own.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# What tests of one room share is made once a process, and costs seconds (a cluster, an API server, a browser) or is
# there once a machine: they stay together. Cluster tests come first, as they take longest and mostly wait for pods.
ROOMS = ("cluster", "integration/operator", "integration/bench", "integration/compare", "browser", "charts")

settings.register_profile("local", deadline=None, print_blob=True)
settings.register_profile("ci", settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_itemcollected(item: pytest.Item) -> None:
    """With pytest-xdist's `--dist loadgroup`, one process runs a room, or a file where tests share nothing else.

    Marked here and not below, as pytest-xdist reads the marks before any conftest's pytest_collection_modifyitems.
    """
    item.add_marker(pytest.mark.xdist_group(_group(item.path)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: _group(item.path) != ROOMS[0])


def _group(path: Path) -> str:
    place = path.relative_to(Path(__file__).parent).as_posix()
    return next((room for room in ROOMS if place.startswith(f"{room}/")), place)
