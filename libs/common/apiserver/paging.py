"""Pages of a list: limit, continue and one consistent moment. The gateway's lists call it on a snapshot."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from libs.common import errors
from libs.common.resources import codec
from libs.common.store.base import Entry

MAX_LIMIT = 10_000
YIELD_EVERY = 256
"""Entries looked at without letting other calls run."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a list goes on: the revision of its first page and the last key that was looked at."""

    revision: int
    after: str


@dataclass(frozen=True, slots=True)
class Page:
    documents: list[dict[str, Any]]
    next: Cursor | None
    remaining: int | None


def render_cursor(cursor: Cursor) -> str:
    """The value of `metadata.continue`. It holds no secret and grants nothing."""
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": cursor.revision, "start": cursor.after}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def parse_cursor(text: str) -> Cursor:
    """Raises BadRequest for what is no continue token of ours."""
    try:
        content = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        revision, after = content["rv"], content["start"]
        if content["v"] != "meta.k8s.io/v1" or type(revision) is not int or revision < 1 or not isinstance(after, str):
            raise ValueError("not ours")
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError) as exc:
        raise errors.BadRequest("continue key is not valid: start the list again without it") from exc
    return Cursor(revision, after)


def parse_limit(text: str) -> int:
    """0 = no limit. Raises BadRequest."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise errors.BadRequest(f"limit must be a number that is not negative, not {text!r}")
    return min(int(text), MAX_LIMIT)


async def cut_page(
    entries: Sequence[Entry],
    revision: int,
    cursor: Cursor | None,
    limit: int,
    predicate: Callable[[Mapping[str, Any]], bool],
    *,
    count_rest: bool,
) -> Page:
    """The next `limit` matching documents (0 = all) after `cursor`; `entries` are sorted by key.

    A page is full or the last one, however much the filter drops. `count_rest`: say how many matching ones remain.
    """
    documents: list[dict[str, Any]] = []
    last, rest = "", 0
    for number, entry in enumerate(entries):
        if number % YIELD_EVERY == YIELD_EVERY - 1:
            await asyncio.sleep(0)
        if cursor is not None and entry.key <= cursor.after:
            continue
        full = bool(limit) and len(documents) == limit
        document = codec.decode_document(entry.value, entry.revision)
        if not predicate(document):
            continue
        if not full:
            documents.append(document)
            last = entry.key
            continue
        rest += 1
        if not count_rest:
            break
    if not rest:
        return Page(documents, None, None)
    return Page(documents, Cursor(revision, last), rest if count_rest else None)
