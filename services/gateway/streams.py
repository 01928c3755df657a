"""Watches: what changes in a kind, as long as the client listens and the caller's standing stays as it was."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from aiohttp import web

from libs.common import errors
from libs.common.apiserver.selectors import Selectors
from libs.common.apiserver.table import render_partial, render_table
from libs.common.apiserver.watch import Event, WatchCache
from libs.common.resources.meta import API_VERSION
from libs.common.resources.registry import ResourceType
from services.gateway.answers import dump
from services.gateway.call import Call
from services.gateway.negotiate import Form
from services.gateway.sight import make_filter, standing
from services.gateway.state import State

MIN_WATCH_S = 1800.0
"""A watch without a time-out of its own lives between this and twice this, so that not all end at once."""
BOOKMARK_S = 45.0
WRITE_TIMEOUT_S = 30.0
"""A client that takes nothing for so long is cut; it resumes where it was."""


class Streams:
    def __init__(self, state: State, *, bookmark_s: float = BOOKMARK_S) -> None:
        self._state = state
        self._bookmark_s = bookmark_s

    async def watch(
        self, call: Call, rtype: ResourceType, cache: WatchCache, selectors: Selectors, form: Form, include: str
    ) -> web.StreamResponse:
        """Answer with a stream of watch events. What ends it early is told as an ERROR event with a Status."""
        with self._state.feed.following(call.principal.token) as is_gone:
            return await self._stream(call, self._open(call, rtype, cache, selectors, is_gone), rtype, form, include)

    async def _stream(
        self, call: Call, events: AsyncGenerator[Event], rtype: ResourceType, form: Form, include: str
    ) -> web.StreamResponse:
        timeout_s = call.number("timeoutSeconds") or MIN_WATCH_S * (1 + random.random())
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
        )
        response.enable_chunked_encoding()
        await response.prepare(call.request)
        render = _Renderer(self._state, rtype, form, include)
        try:
            async with asyncio.timeout(timeout_s), aclosing(events):
                async for event in events:
                    await _send(response, {"type": event.type, "object": render(event)}, call.request.transport)
        except errors.HerdsmanError as exc:
            with contextlib.suppress(ConnectionError):
                await _send(response, {"type": "ERROR", "object": exc.to_status()}, call.request.transport)
        except (TimeoutError, ConnectionError):
            # The time is over, or the client is gone: both are how watches end.
            return response
        await response.write_eof()
        return response

    def _open(
        self, call: Call, rtype: ResourceType, cache: WatchCache, selectors: Selectors, is_gone: Callable[[], bool]
    ) -> AsyncGenerator[Event]:
        """The events that the parameters ask for. Raises Invalid for a combination that must not be ignored."""
        revision, bookmarks = call.number("resourceVersion"), call.is_set("allowWatchBookmarks")
        initial, match = call.query("sendInitialEvents"), call.query("resourceVersionMatch")
        if initial and match != "NotOlderThan":
            raise _forbidden(
                "resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            )
        if match and not initial:
            raise _forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )
        begin = call.is_set("sendInitialEvents")
        grants, principal = self._state.grants, call.principal
        before = standing(grants.current, principal, rtype)

        def check() -> None:
            if is_gone():
                raise errors.Unauthenticated("the token was revoked: sign in again")
            if standing(grants.current, principal, rtype) != before:
                raise errors.Expired("too old resource version: your rights have changed, list again")

        start = None if begin or (not revision and initial == "") else revision
        if initial and not begin:
            start = revision or cache.informer.revision
        every = self._bookmark_s * random.uniform(0.8, 1.2) if bookmarks else None
        shown = make_filter(grants, principal, "watch", rtype, selectors)
        key = rtype.key(selectors.exact_name) if selectors.exact_name is not None else ""
        listed = self._state.tokens.entries(principal, "watch", selectors) if rtype.plural == "tokens" else None
        return cache.watch(
            start, shown, bookmark_every_s=every, initial_events_end=begin and bookmarks, check=check, key=key, initial=listed,
        )  # fmt: skip


class _Renderer:
    """One event's object in the form of the answer; a Table carries its columns in the first event only."""

    def __init__(self, state: State, rtype: ResourceType, form: Form, include: str) -> None:
        self._state, self._rtype, self._form, self._include = state, rtype, form, include
        self._first = True

    def __call__(self, event: Event) -> dict[str, Any]:
        document = event.document
        if event.type == "BOOKMARK":
            document = {"kind": self._rtype.kind, "apiVersion": API_VERSION, **document}
        if self._form.kind == "Table":
            metadata = {"resourceVersion": document["metadata"]["resourceVersion"]}
            table = render_table(
                self._rtype, [document], metadata, self._state.now(),
                include=self._include, version=self._form.version, with_columns=self._first,
            )  # fmt: skip
            self._first = False
            return table
        return render_partial(document, self._form.version) if self._form.kind else document


async def _send(response: web.StreamResponse, event: dict[str, Any], transport: asyncio.Transport | None) -> None:
    """One line. A client that does not take it is cut off: raises ConnectionError."""
    try:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await response.write(dump(event) + b"\n")
    except TimeoutError:
        if transport is not None:
            transport.abort()
        raise ConnectionResetError("the client takes nothing") from None


def _forbidden(field: str, why: str) -> errors.Invalid:
    cause = errors.Cause(field, f"Forbidden: {why}", "FieldValueForbidden")
    return errors.Invalid(f'ListOptions.meta.k8s.io "" is invalid: {field}: Forbidden: {why}', causes=[cause])
