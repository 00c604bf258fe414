"""`python -m metisfl_learner`: one learner process. Settings come from the environment, see `settings`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

from metisfl import logs
from metisfl.allocator import keep_chunk_memory
from metisfl_learner.exits import ExitCode, FatalError
from metisfl_learner.process import run
from metisfl_learner.settings import Settings, SettingsError
from metisfl_learner.worker import Worker


def main() -> int:
    """Run a learner; returns its exit code (`metisfl_learner.exits`)."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        for problem in error.problems:
            print(f"metisfl_learner: {problem}", file=sys.stderr)
        _explain(error.termination_log, str(error))
        return ExitCode.SETTINGS
    logs.configure(settings.log_format, settings.log_level)
    keep_chunk_memory(one_arena=False)
    worker = Worker()
    code = _run(settings, worker)
    if worker.busy:
        # The learner's code ignores that it was cancelled; ending the interpreter under it could crash.
        logging.shutdown()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run(settings: Settings, worker: Worker) -> ExitCode:
    log = logs.logger(__name__, learner=settings.learner)
    try:
        asyncio.run(run(settings, worker))
    except FatalError as error:
        # The way into the user's module; other errors have said all, or their traceback is in the log already.
        cause = error.__cause__ if error.code is ExitCode.ENTRYPOINT else None
        log.error("giving up with exit status %d: %s", error.code, error.message, exc_info=cause)
        _explain(settings.termination_log, error.message)
        return error.code
    except Exception as error:
        log.exception("unexpected error")
        _explain(settings.termination_log, f"unexpected {type(error).__name__}: {error}")
        return ExitCode.UNEXPECTED
    return ExitCode.FINISHED


def _explain(termination_log: Path | None, message: str) -> None:
    if termination_log is not None:
        try:
            termination_log.write_text(message + "\n", encoding="utf-8")
        except OSError as error:
            logging.getLogger(__name__).warning("cannot write %s: %s", termination_log, error)


if __name__ == "__main__":
    sys.exit(main())
