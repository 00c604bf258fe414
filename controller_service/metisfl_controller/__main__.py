"""`python -m metisfl_controller`: reads settings from the environment and serves until SIGTERM or SIGINT.

Exit status: 0 orderly; 2 bad settings or an invalid federation; 3 the state directory cannot be used; 1 anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import MutableMapping

import uvloop

from metisfl.allocator import keep_chunk_memory
from metisfl.logs import configure, logger
from metisfl_controller import kernel_cache
from metisfl_controller.settings import Settings, SettingsError


def main() -> int:
    try:
        settings = Settings.parse(os.environ)
    except SettingsError as error:
        print(f"metisfl_controller: {error}", file=sys.stderr)
        return 2
    configure(settings.log_format, settings.log_level)
    keep_chunk_memory(one_arena=True)
    _raise_open_files()
    _calm_threads(os.environ)
    try:
        kernel_cache.prepare(os.environ)
    except OSError as error:
        print(f"metisfl_controller: compiled kernels cannot be kept in NUMBA_CACHE_DIR: {error}", file=sys.stderr)
        return 1
    return uvloop.run(_run(settings))


def _calm_threads(environment: MutableMapping[str, str]) -> None:
    """Libraries read these when they are imported. By default OpenMP's threads spin between two folds, on the very
    cores that receive the next uploads, and NumPy's linear algebra, which is not used, starts threads of its own."""
    environment.setdefault("OMP_WAIT_POLICY", "passive")
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")


def _raise_open_files() -> None:
    """Every learner is a socket, and the usual soft limit of 1024 files is far below what the hard limit allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS states a hard limit that it does not grant.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(settings: Settings) -> int:
    # After the environment is ready for Numba.
    from metisfl.spec import SpecError
    from metisfl_controller.security.credentials import CredentialsError
    from metisfl_controller.service import serve
    from metisfl_controller.state.records import StateError

    log = logger("metisfl.controller")
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    try:
        await serve(settings, log, stop)
    except (SettingsError, CredentialsError) as error:
        log.error("%s", error)
        return 2
    except SpecError as error:
        for problem in error.problems:
            log.error("invalid federation: %s", problem)
        return 2
    except StateError as error:
        log.error("%s", error)
        return 3
    except OSError as error:
        log.error("%s", error, exc_info=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
