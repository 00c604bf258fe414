"""Python runs this at start when its folder is on PYTHONPATH: no call of `time.sleep` lasts longer than 0.1 s.

Flower and NVIDIA FLARE wait for each other by sleeping for up to 3 s between looks. Measured once more without that,
their rounds show what the work takes. Shorter still would be unfair to them: many processes that look more often keep
the cores from those that work.
"""

import time
from typing import SupportsIndex

LONGEST = 0.1

_sleep = time.sleep


def _short(seconds: SupportsIndex | float, /) -> None:
    _sleep(min(float(seconds), LONGEST))


time.sleep = _short
