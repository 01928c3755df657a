"""`/apis/management.herdsman.dev/v1/auditevents`: the audit log as lines of JSON, for whoever may read all of it or that of their clusters.

A list is one page: events, then one line of kind AuditPage with `continue` for the next one. With `watch=true` it goes on with what comes.
`seals=true` gives every line of every batch, each batch after its seal: what `herdsman audit verify` needs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime
from typing import Any

from aiohttp import web

from libs.common import errors
from libs.common.access.grants import Grants
from libs.common.access.principal import Principal
from libs.common.audit.chain import API_VERSION, render
from libs.common.audit.event import PREFIX
from libs.common.audit.stream import audit_stream
from libs.common.bus.journal import open_journal
from libs.common.resources.meta import GROUP
from services.gateway.audit_log import AuditLog, Batch, Cursor, Event, Query, Sees, choose, parse_cursor
from services.gateway.call import Call
from services.gateway.state import State

PLURAL = "auditevents"
LINES = "application/x-ndjson"
DEFAULT_LIMIT, MAX_LIMIT = 500, 5000
PAGE_BYTES = 8 * 1024 * 1024
PAGE_S = 5.0
"""A page ends after so long with what it has, be it nothing: the client asks on, and nobody waits for a search of hours."""
POLL_S = 0.3
KEEP_ALIVE_S = 15.0
WRITE_TIMEOUT_S = 30.0
MAX_WATCH_S = 3600.0


class AuditEvents:
    def __init__(self, state: State) -> None:
        self._state = state
        self._log = AuditLog(open_journal(state.bus, audit_stream()))

    async def collection(self, call: Call) -> web.StreamResponse:
        """A page, or a stream of what comes."""
        verb = "watch" if call.is_watch else "list"
        sees = find_sight(self._state.grants.current, call.principal, verb)
        query, seals = parse_query(call), call.is_set("seals")
        if seals and (sees is not None or query != Query(since=query.since, until=query.until)):
            raise errors.Denied(
                "seals cover whole batches: they are for those who may read all events, without a filter but since and until"
            )
        given = call.query("continue")
        cursor = parse_cursor(given) if given else await self._log.begin(query.since)
        if verb == "watch":
            return await self._watch(call, cursor, query, seals=seals)
        return await self._page(call, cursor, query, sees, seals=seals)

    async def key(self, _call: Call) -> web.StreamResponse:
        """The hub's public identity key, which verifies the log."""
        pem = await asyncio.to_thread(self._state.config.identity_public_key.read_text, encoding="ascii")
        return web.Response(text=pem, content_type="application/x-pem-file")

    async def _page(self, call: Call, cursor: Cursor, query: Query, sees: Sees | None, *, seals: bool) -> web.Response:
        limit = min(call.number("limit") or DEFAULT_LIMIT, MAX_LIMIT)
        first, last = await self._log.bounds()
        lines: list[bytes] = []
        size, until, more = 0, time.monotonic() + PAGE_S, False
        async with aclosing(self._log.batches(cursor)) as batches:
            async for batch, start in batches:
                if len(lines) >= limit or size >= PAGE_BYTES or time.monotonic() > until:
                    more = True
                    cursor = Cursor(batch.sequence, start)
                    break
                took, end = _take(batch, start, query, sees, limit - len(lines), seals=seals)
                lines += took
                size += sum(map(len, took))
                if end < len(batch.lines):
                    more, cursor = True, Cursor(batch.sequence, end)
                    break
                cursor = Cursor(batch.sequence + 1)
        page = {
            "kind": "AuditPage", "apiVersion": API_VERSION, "continue": str(cursor) if more else "", "next": str(cursor),
            "firstSequence": first, "lastSequence": last,
        }  # fmt: skip
        return web.Response(body=b"\n".join([*lines, render(page)]) + b"\n", content_type=LINES)

    async def _watch(self, call: Call, cursor: Cursor, query: Query, *, seals: bool) -> web.StreamResponse:
        """Lines as they come. A right that is lost ends it with a Status line."""
        response = web.StreamResponse(headers={"Content-Type": LINES, "Cache-Control": "no-cache, private"})
        response.enable_chunked_encoding()
        await response.prepare(call.request)
        timeout_s = min(float(call.number("timeoutSeconds") or MAX_WATCH_S), MAX_WATCH_S)
        sight = _Sight(lambda: self._state.grants.current, call.principal)
        try:
            async with asyncio.timeout(timeout_s):
                quiet_since = time.monotonic()
                while True:
                    sees = sight.now()
                    if seals and sees is not None:
                        raise errors.Denied("seals are for those who may read all events")
                    batch = await self._log.batch_at(cursor.sequence)
                    data = b""
                    if batch is not None:
                        start = cursor.line if batch.sequence == cursor.sequence else 0
                        took, _ = _take(batch, start, query, sees, len(batch.lines), seals=seals)
                        cursor = Cursor(batch.sequence + 1)
                        data = b"".join(line + b"\n" for line in took)
                    if data or time.monotonic() - quiet_since > KEEP_ALIVE_S:
                        # Where to go on after a break; in silence it is also a sign of life.
                        mark = {"kind": "AuditPage", "apiVersion": API_VERSION, "next": str(cursor)}
                        data += render(mark) + b"\n"
                    if data:
                        await _send(response, data, call.request.transport)
                        quiet_since = time.monotonic()
                    if batch is None:
                        await asyncio.sleep(POLL_S)
        except errors.HerdsmanError as exc:
            await _send(response, render(exc.to_status()) + b"\n", call.request.transport)
        except (TimeoutError, ConnectionError):
            # The time is over, or the client is gone: both are how watches end.
            return response
        await response.write_eof()
        return response


class _Sight:
    """What a caller may see, worked out again only when the grants are others."""

    def __init__(self, grants: Callable[[], Grants], principal: Principal) -> None:
        self._grants = grants
        self._principal = principal
        self._of: Grants | None = None
        self._sees: Sees | None = None

    def now(self) -> Sees | None:
        """Raises Denied."""
        grants = self._grants()
        if grants is not self._of:
            self._sees = find_sight(grants, self._principal, "watch")
            self._of = grants
        return self._sees


def find_sight(grants: Grants, principal: Principal, verb: str) -> Sees | None:
    """Which events the caller may see: None = all, else those of living clusters in which the right is held. Raises Denied."""
    if grants.is_allowed(principal, verb, PLURAL):
        return None
    own = {
        uid for name, uid in grants.clusters.items() if grants.is_allowed(principal, verb, PLURAL, cluster=name)
    }  # fmt: skip
    if not own:
        raise errors.Denied(
            f'{PLURAL}.{GROUP} is forbidden: User "{principal.user}" cannot {verb} resource "{PLURAL}" in API group "{GROUP}"',
            kind=PLURAL,
        )

    def sees(event: Event) -> bool:
        return event["annotations"].get(f"{PREFIX}clusterUid") in own

    return sees


def parse_query(call: Call) -> Query:
    """Raises BadRequest."""
    return Query(
        since=_moment(call, "since"), until=_moment(call, "until"),
        cluster=call.query("cluster") if "cluster" in call.request.query else None,
        user=call.query("user"), verb=call.query("verb"), resource=call.query("resource"), denied=call.is_set("denied"),
        account=call.query("account"),
    )  # fmt: skip


def _moment(call: Call, name: str) -> datetime | None:
    text = call.query(name)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as exc:
        raise errors.BadRequest(f"the parameter {name} must be a time like 2026-01-02T15:04:05Z") from exc
    if moment.tzinfo is None:
        raise errors.BadRequest(f"the parameter {name} must say its time zone, like 2026-01-02T15:04:05Z")
    return moment


def _take(
    batch: Batch, start: int, query: Query, sees: Sees | None, limit: int, *, seals: bool
) -> tuple[list[bytes], int]:
    """The lines of a batch that go out, and where to go on in it. With seals a batch goes out whole."""
    if seals:
        if batch.seal is None:
            problem: dict[str, Any] = {
                "kind": "BadBatch", "apiVersion": API_VERSION, "sequence": batch.sequence, "problem": batch.problem,
            }  # fmt: skip
            return [render(problem)], len(batch.lines)
        if query.until is not None and datetime.fromisoformat(batch.seal.at.replace("Z", "+00:00")) > query.until:
            return [], len(batch.lines)
        return [batch.seal.to_line(), *batch.lines], len(batch.lines)
    took: list[bytes] = []
    for number in range(start, len(batch.lines)):
        if len(took) >= limit:
            return took, number
        if choose(batch.lines[number], query, sees):
            took.append(batch.lines[number])
    return took, len(batch.lines)


async def _send(response: web.StreamResponse, data: bytes, transport: asyncio.Transport | None) -> None:
    """A client that does not take it is cut off: raises ConnectionError."""
    try:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await response.write(data)
    except TimeoutError:
        if transport is not None:
            transport.abort()
        raise ConnectionResetError("the client takes nothing") from None
