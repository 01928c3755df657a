"""Reads of the management API: get and list from the informers, filtered by what the caller may see. Watches are in `streams`, lists
of tokens in `token_lists`."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from libs.common import errors
from libs.common.apiserver import rights
from libs.common.apiserver.paging import Cursor, cut_page, parse_cursor, parse_limit, render_cursor
from libs.common.apiserver.selectors import Selectors, parse_selectors
from libs.common.apiserver.table import render_partial, render_table
from libs.common.apiserver.watch import WatchCache
from libs.common.resources.meta import GROUP
from libs.common.resources.registry import BY_PLURAL, ResourceType
from libs.common.store.base import Entry
from services.gateway.answers import answer, answer_list
from services.gateway.call import Call
from services.gateway.listing import Listing
from services.gateway.negotiate import Form, parse_accept
from services.gateway.sight import check_collection, make_filter
from services.gateway.state import State
from services.gateway.streams import Streams
from services.gateway.token_lists import TokenLists

START_TIMEOUT_S = 5.0
_INCLUDE = ("Metadata", "Object", "None")


class Api:
    """Handlers of GET under /apis/management.herdsman.dev/v1."""

    def __init__(self, state: State, streams: Streams) -> None:
        self._state = state
        self._streams = streams
        self._token_lists = TokenLists(state)

    async def collection(self, call: Call) -> web.StreamResponse:
        """GET of a collection: a list, or with `watch` a stream."""
        rtype = find_type(call.path("plural"))
        watching = call.is_watch
        verb = "watch" if watching else "list"
        check_verb(rtype, verb)
        rights.check_caller(call.principal, verb)
        check_collection(self._state.grants.current, call.principal, verb, rtype)
        selectors = parse_selectors(rtype, call.query("labelSelector"), call.query("fieldSelector"))
        form = parse_accept(call.request.headers.get("Accept", ""))
        include = parse_include(call)
        cache = self._state.caches[rtype.plural]
        await start_cache(cache)
        if watching:
            return await self._streams.watch(call, rtype, cache, selectors, form, include)
        if rtype.plural == "tokens":
            return await self._token_lists.list(call, cache, selectors, form, include)
        return await self._list(call, rtype, cache, selectors, form, include)

    async def _list(
        self, call: Call, rtype: ResourceType, cache: WatchCache, selectors: Selectors, form: Form, include: str
    ) -> web.StreamResponse:
        limit = parse_limit(call.query("limit"))
        cursor = parse_cursor(call.query("continue")) if call.query("continue") else None
        entries, revision = await self._snapshot(call, cache, cursor)
        if selectors.exact_name is not None:
            wanted = rtype.key(selectors.exact_name)
            entries = [entry for entry in entries if entry.key == wanted]
        shown = make_filter(self._state.grants, call.principal, "list", rtype, selectors)
        page = await cut_page(entries, revision, cursor, limit, shown, count_rest=bool(limit) and not selectors)
        metadata: dict[str, Any] = {"resourceVersion": str(revision)}
        if page.next is not None:
            metadata["continue"] = render_cursor(page.next)
            if page.remaining is not None:
                metadata["remainingItemCount"] = page.remaining
        listing = Listing(rtype, form, include, self._state.now(), metadata)
        return await answer_list(listing.envelope, listing.field, [listing.item(d) for d in page.documents])

    async def _snapshot(self, call: Call, cache: WatchCache, cursor: Cursor | None) -> tuple[list[Entry], int]:
        """The entries of the moment that the request names: newest, at least, exactly, or that of the first page."""
        revision = parse_version(call)
        match = call.query("resourceVersionMatch")
        if cursor is not None:
            if revision or match:
                raise errors.BadRequest("specifying resource version is not allowed when using continue")
            if cursor.revision > cache.informer.revision:
                raise _continue_expired()
            try:
                return cache.snapshot(cursor.revision)
            except errors.Expired as exc:
                raise _continue_expired() from exc
        if match not in ("", "NotOlderThan", "Exact") or (match and revision is None):
            raise errors.BadRequest("resourceVersionMatch must be NotOlderThan or Exact, and needs a resourceVersion")
        if revision:
            await cache.wait_for(revision)
        if match == "Exact":
            if not revision:
                raise errors.BadRequest("resourceVersionMatch Exact needs a resourceVersion above 0")
            return cache.snapshot(revision)
        return cache.snapshot()

    async def read(self, call: Call) -> web.StreamResponse:
        """GET of one object, or of its status."""
        rtype, name, subresource = find_type(call.path("plural")), call.path("name"), call.path("subresource")
        check_verb(rtype, "get", subresource)
        rights.check_caller(call.principal, "get")
        form = parse_accept(call.request.headers.get("Accept", ""))
        cache = self._state.caches[rtype.plural]
        await start_cache(cache)
        revision = parse_version(call)
        if revision:
            await cache.wait_for(revision)
        document = await self._state.find(rtype, name)
        rights.check_object(self._state.grants.current, call.principal, "get", rtype, name, document, subresource)
        if document is None:
            raise rights.absent(rtype, name)
        return answer(render_form(self._state, rtype, document, form, parse_include(call)))


async def start_cache(cache: WatchCache) -> None:
    """The cache, following its informer. Raises Unavailable while this process has not read the bucket yet."""
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            await cache.start()
    except TimeoutError as exc:
        raise errors.Unavailable(
            f'the gateway has not read bucket "{cache.informer.bucket}" yet: see /readyz for what it waits for'
        ) from exc


def find_type(plural: str) -> ResourceType:
    """Raises NotFound as Kubernetes does for a path that nobody serves."""
    rtype = BY_PLURAL.get(plural)
    if rtype is None:
        raise errors.NotFound("the server could not find the requested resource")
    return rtype


def check_verb(rtype: ResourceType, verb: str, subresource: str = "") -> None:
    """Raises MethodNotAllowed for what this kind doesn't do, NotFound for a subresource that it hasn't."""
    if subresource and not (subresource == "status" and rtype.has_status and "update" in rtype.verbs):
        raise errors.NotFound("the server could not find the requested resource")
    if verb not in rtype.verbs:
        raise errors.MethodNotAllowed(f"{verb} is not supported on {rtype.plural}.{GROUP}", kind=rtype.plural)


def render_form(
    state: State, rtype: ResourceType, document: dict[str, Any], form: Form, include: str
) -> dict[str, Any]:
    """One object in the form that the client asked for."""
    if form.kind == "Table":
        metadata = {"resourceVersion": document["metadata"].get("resourceVersion", "")}
        return render_table(rtype, [document], metadata, state.now(), include=include, version=form.version)
    return render_partial(document, form.version) if form.kind else document


def parse_include(call: Call) -> str:
    include = call.query("includeObject") or "Metadata"
    if include not in _INCLUDE:
        raise errors.BadRequest(f"includeObject must be one of {', '.join(_INCLUDE)}")
    return include


def parse_version(call: Call) -> int | None:
    """The resourceVersion of a read: None when the request names none. Raises BadRequest."""
    return call.number("resourceVersion")


def _continue_expired() -> errors.Expired:
    return errors.Expired(
        "The provided continue parameter is too old to display a consistent list result. "
        "You can start a new list without the continue parameter."
    )
