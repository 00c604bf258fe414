"""How property tests run: without a time limit each, as machines are busy; with the same examples every time in CI.

A fresh machine must not fail by the luck of a draw on a change that has nothing to do with it; developers' runs draw
anew each time, and what they find becomes an example of its own.
"""

import os

from hypothesis import settings

settings.register_profile("local", deadline=None, print_blob=True)
settings.register_profile("ci", settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
