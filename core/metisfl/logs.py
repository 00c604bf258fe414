"""Structured logs: JSON lines in pods, readable lines on a terminal, with the same context in each.

Context (federation, learner, round) is bound once to a LoggerAdapter and appears in every line that it writes.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

from pythonjsonlogger.json import JsonFormatter

LogFormat = Literal["json", "text"]


class ContextLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger with fields that go into every line; `bind` makes another one with more of them."""

    def __init__(self, logger: logging.Logger, context: Mapping[str, object]) -> None:
        super().__init__(logger, dict(context))

    def bind(self, **context: object) -> ContextLogger:
        return ContextLogger(self.logger, {**(self.extra or {}), **context})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {"context": {**(self.extra or {}), **kwargs.pop("extra", {})}}
        return msg, kwargs


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        context = getattr(record, "context", {})
        # Peers choose some of the values, and are not to write lines of their own.
        fields = " ".join(f"{key}={value}" for key, value in context.items()).replace("\n", "\\n").replace("\r", "\\r")
        head, newline, rest = line.partition("\n")
        return f"{head}  [{fields}]{newline}{rest}" if fields else line


class _JsonFormatter(JsonFormatter):
    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        log_data.update(log_data.pop("context", None) or {})
        return log_data


def configure(form: LogFormat, level: str = "INFO") -> None:
    """Send this process's logs to standard error in one of the two forms. Call once, from `__main__`."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(
            _JsonFormatter(
                "{asctime}{levelname}{name}{message}",
                style="{",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            )
        )
    else:
        handler.setFormatter(_TextFormatter("{asctime} {levelname:<7} {message}", datefmt="%H:%M:%S", style="{"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "asyncio", "uvicorn.access", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def logger(name: str, **context: object) -> ContextLogger:
    """A logger for one module, with context fields."""
    return ContextLogger(logging.getLogger(name), context)
