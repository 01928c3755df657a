"""A recorded session on this machine: fetched whole, then read as often as needed. Used by `commands/recordings` and `player`."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from libs.common import errors
from services.cli.hub import Document, Hub, segment

ROOT = "/v1/recordings"
_IN_MEMORY_BYTES = 16 * 2**20
Event = tuple[float, int, bytes]
"""Seconds from the session's start, channel (`libs.common.recording.events`), bytes."""


class Recording:
    """`document` has facts, outcome and check. The events lie in a temporary file where they are many."""

    def __init__(self, hub: Hub, id_: str) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES, mode="w+", encoding="ascii")  # noqa: SIM115 - closed by close
        self.document: Document = {}
        try:
            for line in hub.lines(f"{ROOT}/{segment(id_)}/events"):
                if isinstance(line, dict):
                    self.document = line
                else:
                    self._file.write(json.dumps(line) + "\n")
            if "check" not in self.document or self.document["check"]["messages"] < 1:
                raise errors.Unavailable("the hub did not send the recording to its end: try again")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def facts(self) -> Document:
        return dict(self.document.get("facts") or {})

    @property
    def started(self) -> float:
        """Seconds since 1970."""
        return datetime.fromisoformat(str(self.facts.get("started"))).timestamp()

    @property
    def problem(self) -> str:
        """Why it can't be trusted, or ""."""
        return str(self.document["check"].get("problem") or "")

    def events(self) -> Iterator[Event]:
        self._file.seek(0)
        for line in self._file:
            at_ms, channel, data = json.loads(line)
            yield at_ms / 1000, int(channel), base64.b64decode(data)


def describe_end(document: Document) -> str:
    """`exit 0`, `unfinished`, or what else became of it."""
    outcome: Any = document.get("outcome")
    if not outcome:
        return "unfinished"
    if outcome.get("exitCode") is not None:
        return f"exit {outcome['exitCode']}"
    if outcome.get("httpStatus") != 101:
        return f"not begun ({outcome.get('httpStatus') or 'no answer'})"
    return "cut"
