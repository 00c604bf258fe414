"""A process that ends its whole process group when the one that started it is gone, however that came about.

`metisfl run` starts it first, holds the other end of its standard input, and puts every process of the run into its
group. So also `kill -9` of the runner leaves nothing behind.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Wait until the other end of standard input is closed, then kill the group this process leads."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
