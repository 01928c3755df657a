"""Structured logs: JSON in clusters, readable on a terminal, to standard error. Event names are constants in the past tense.

A value of type `Secret` prints as `***` by itself; nothing here filters by key, because a deny-list always misses one.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, WrappedLogger

from libs.common.observe import trace

LogFormat = Literal["console", "json"]
Logger = structlog.stdlib.BoundLogger


def _add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    trace_id = trace.current_trace_id()
    if trace_id:
        event["trace_id"] = trace_id
    return event


class _Unfailing(io.TextIOBase):
    """Standard error that never raises: a service whose log lies on a full disk goes on serving, and loses lines of its log.

    A line is written whole or not at all, but for the one that took the last bytes: the next one starts on a line of its own.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._torn = False

    def write(self, text: str, /) -> int:
        data = text.encode("utf-8", "backslashreplace")
        try:
            written = os.write(self._descriptor, b"\n" + data if self._torn else data)
        except OSError:
            return len(text)
        self._torn = written < len(data)
        return len(text)


def configure(service: str, level: str = "info", log_format: LogFormat = "console") -> None:
    """Set up this process's logging, libraries' loggers included (they get `warning` and above). Call once, at start."""
    stream = _Unfailing(sys.stderr.fileno())
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
        structlog.processors.StackInfoRenderer(),
    ]
    if log_format == "json":
        tail: list[Any] = [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=30
        )
        tail = [plain]
    structlog.configure(
        processors=[*shared, *tail],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, stream)),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)

    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[
        structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail,
    ], foreign_pre_chain=shared))  # fmt: skip
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))


def get(name: str) -> Any:
    """A logger whose lines carry `component=<name>`."""
    return structlog.get_logger(component=name)
