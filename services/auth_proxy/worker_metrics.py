"""The metrics of all workers as one exposition: every sample gets the label `worker`, so no scrape shows a random one. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{)?(.*)")


def merge(texts: Mapping[int, str]) -> str:
    """By worker's number its text in the Prometheus format; one text with each family once."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for number, text in sorted(texts.items()):
        family = ""
        for line in text.splitlines():
            if line.startswith("# "):
                words = line.split(" ", 3)
                if len(words) > 2 and words[1] in ("HELP", "TYPE"):
                    family = words[2]
                    head = heads.setdefault(family, [])
                    if line not in head:
                        head.append(line)
            elif line:
                samples.setdefault(family, []).append(_labelled(line, number))
    lines: list[str] = []
    for family, head in heads.items():
        lines += [*head, *samples.get(family, ())]
    return "".join(f"{line}\n" for line in [*samples.get("", ()), *lines])


def _labelled(line: str, number: int) -> str:
    match = _SAMPLE.match(line)
    assert match is not None, line
    name, brace, rest = match.groups()
    return f'{name}{{worker="{number}",{rest}' if brace else f'{name}{{worker="{number}"}}{rest}'
