"""asciicast v2 (docs.asciinema.org, "asciicast v2"): a recording as a file that other players play. Pure."""

from __future__ import annotations

import codecs
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from libs.common.recording.events import OUTPUTS, RESIZE, STDIN

DEFAULT_SIZE = (80, 24)


def parse_size(text: str) -> tuple[int, int] | None:
    """Columns and rows of `80x24`; None for what no terminal has."""
    columns, _, rows = text.partition("x")
    if not (columns.isdigit() and rows.isdigit()):
        return None
    size = int(columns), int(rows)
    return size if all(size) else None


def render(facts: dict[str, Any], started: float, events: Iterable[tuple[float, int, bytes]]) -> Iterator[str]:
    """Lines, each with its line feed. `facts` as the API gives them; `events`: seconds from the start, channel, data.

    The file holds text: a character that is cut between two events is kept for the later one, bytes that are no UTF-8 are replaced.
    """
    first: list[tuple[float, int, bytes]] = []
    rest = iter(events)
    size = DEFAULT_SIZE
    for event in rest:
        first.append(event)
        if event[1] == RESIZE:
            size = parse_size(event[2].decode("ascii", "replace")) or size
        if event[1] in (*OUTPUTS, RESIZE):
            break
    where = f"{facts.get('namespace', '')}/{facts.get('pod', '')}"
    header = {
        "version": 2, "width": size[0], "height": size[1], "timestamp": int(started), "env": {"TERM": "xterm-256color"},
        "title": f"{facts.get('user', '')} in {facts.get('cluster', '')}, {where}",
    }  # fmt: skip
    command = " ".join(facts.get("command") or ())
    yield _line(header | ({"command": command} if command else {}))
    decoders = {channel: codecs.getincrementaldecoder("utf-8")("replace") for channel in (STDIN, *OUTPUTS)}
    for at_s, channel, data in itertools.chain(first, rest):
        if channel == RESIZE:
            if parse_size(data.decode("ascii", "replace")) is not None:
                yield _line([round(at_s, 3), "r", data.decode("ascii")])
        elif channel in decoders:
            text = decoders[channel].decode(data)
            if text:
                yield _line([round(at_s, 3), "i" if channel == STDIN else "o", text])


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
