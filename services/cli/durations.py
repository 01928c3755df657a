"""Durations and moments as people write them: `90s`, `1h`, `1h30m`, `7d`. Pure; used by `grant`, `kubeconfig` and `token`."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from click import BadParameter

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WHOLE = re.compile(r"(?:\d+[smhd])+")


def parse_duration(text: str) -> int:
    """Seconds. Raises BadParameter, which click shows as wrong usage."""
    compact = text.strip().lower()
    if not _WHOLE.fullmatch(compact):
        raise BadParameter(f'"{text}" is not a duration: write it like 30m, 1h, 1h30m or 7d')
    seconds = sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", compact))
    if seconds <= 0 or seconds > 10 * 365 * 86400:
        raise BadParameter(f'"{text}" is out of range: give more than nothing and at most ten years')
    return seconds


def format_moment(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as the API writes times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_elapsed(seconds: float) -> str:
    """`4.2 s`, `1 min 5 s`: how long something took, for a person."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
