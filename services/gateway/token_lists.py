"""Lists of tokens: read from the store page by page, and never all in memory at once.

Pages do not show one moment: each shows its tokens as they are when it is read. The list's resourceVersion is from before the first, so a
watch from there tells what changed meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiohttp import web

from libs.common import errors
from libs.common.apiserver.paging import Cursor, parse_cursor, parse_limit, render_cursor
from libs.common.apiserver.selectors import Selectors
from libs.common.apiserver.watch import WatchCache
from libs.common.resources import codec
from services.gateway.answers import answer_list, stream_list
from services.gateway.call import Call
from services.gateway.listing import Listing
from services.gateway.negotiate import Form
from services.gateway.sight import make_filter
from services.gateway.state import State
from services.gateway.token_feed import TOKENS
from services.gateway.token_reader import Position


class TokenLists:
    def __init__(self, state: State) -> None:
        self._state = state

    async def list(
        self, call: Call, cache: WatchCache, selectors: Selectors, form: Form, include: str
    ) -> web.StreamResponse:
        """A page, or all as a stream where the client wants no pages."""
        limit = parse_limit(call.query("limit"))
        cursor = parse_cursor(call.query("continue")) if call.query("continue") else None
        revision = await _check_version(call, cache, cursor)
        after = ("", "") if cursor is None else _parse_position(cursor.after)
        found = self._found(call, selectors, after)
        if not limit or not await self._state.tokens.is_complete():
            listing = self._listing(form, include, {"resourceVersion": str(revision)})
            return await stream_list(call.request, listing.envelope, listing.field, _rendered(found, listing))
        documents: list[dict[str, Any]] = []
        metadata, last = {"resourceVersion": str(revision)}, after
        async with aclosing(found):
            async for position, document in found:
                if len(documents) == limit:
                    metadata["continue"] = render_cursor(Cursor(revision, json.dumps(last)))
                    break
                documents.append(document)
                last = position
        listing = self._listing(form, include, metadata)
        return await answer_list(listing.envelope, listing.field, [listing.item(d) for d in documents])

    async def _found(
        self, call: Call, selectors: Selectors, after: Position
    ) -> AsyncGenerator[tuple[Position, dict[str, Any]], None]:
        shown = make_filter(self._state.grants, call.principal, "list", TOKENS, selectors)
        async with aclosing(self._state.tokens.walk(call.principal, "list", selectors, after)) as entries:
            async for position, entry in entries:
                document = codec.decode_document(entry.value, entry.revision)
                if shown(document):
                    yield position, document

    def _listing(self, form: Form, include: str, metadata: dict[str, str]) -> Listing:
        return Listing(TOKENS, form, include, self._state.now(), metadata)


async def _rendered(
    found: AsyncGenerator[tuple[Position, dict[str, Any]], None], listing: Listing
) -> AsyncGenerator[Any, None]:
    async with aclosing(found):
        async for _position, document in found:
            yield listing.item(document)


async def _check_version(call: Call, cache: WatchCache, cursor: Cursor | None) -> int:
    """The resourceVersion of the list. Raises as for other kinds for versions that can't be had: nothing is kept of the past."""
    wanted, match = call.number("resourceVersion"), call.query("resourceVersionMatch")
    if cursor is not None:
        if wanted or match:
            raise errors.BadRequest("specifying resource version is not allowed when using continue")
        return cursor.revision
    if match not in ("", "NotOlderThan", "Exact") or (match and wanted is None):
        raise errors.BadRequest("resourceVersionMatch must be NotOlderThan or Exact, and needs a resourceVersion")
    if match == "Exact" and not wanted:
        raise errors.BadRequest("resourceVersionMatch Exact needs a resourceVersion above 0")
    if wanted:
        await cache.wait_for(wanted)
    revision = cache.informer.revision
    if match == "Exact" and wanted != revision:
        raise errors.Expired("tokens can only be listed as they are now: leave resourceVersionMatch out")
    return revision


def _parse_position(text: str) -> Position:
    """Raises BadRequest for what is no continue token of ours."""
    try:
        user, name = json.loads(text)
    except (ValueError, TypeError, RecursionError) as exc:
        raise errors.BadRequest("continue key is not valid: start the list again without it") from exc
    if not isinstance(user, str) or not isinstance(name, str):
        raise errors.BadRequest("continue key is not valid: start the list again without it")
    return user, name
