"""Recorded sessions for who may see them: the list, one with its check, and its events as lines of JSON.

Reading is the right `get` or `list` on `sessionrecordings`; in one cluster it may be given by a role of that cluster, but no built-in one
does: recordings show whatever was on the screen. What is sent was checked first, message by message; the first that is not genuine ends it.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Any

from aiohttp import web

from libs.common import errors
from libs.common.recording.chain import Broken, Opener, peek_outcome
from libs.common.recording.events import Event
from libs.common.recording.log import RecordingLog, parse_id
from libs.common.recording.model import Facts, Outcome
from services.gateway.answers import answer, dump
from services.gateway.call import Call
from services.gateway.state import State

PLURAL = "sessionrecordings"
MAX_LISTED = 1000
WRITE_TIMEOUT_S = 60.0


class Recordings:
    def __init__(self, state: State, stream: RecordingLog) -> None:
        self._state = state
        self._stream = stream

    async def collection(self, call: Call) -> web.StreamResponse:
        """The latest sessions, newest first. Parameters: user, cluster, since (RFC 3339)."""
        if not self._state.grants.current.reaches(call.principal, "list", PLURAL):
            raise self._denied(call, "list")
        found: dict[str, tuple[Facts, Outcome | None]] = {}
        async with aclosing(self._stream.read_ends(_since(call))) as parts:
            async for part in parts:
                if part.kind == "head":
                    opener = Opener(part.id, self._state.verifier)
                    try:
                        opener.open(part.data)
                    except Broken:
                        continue
                    if opener.facts is not None and self._is_wanted(call, opener.facts):
                        found[part.id] = (opener.facts, None)
                        while len(found) > MAX_LISTED:
                            del found[next(iter(found))]
                elif part.id in found:
                    found[part.id] = (found[part.id][0], peek_outcome(part.data, self._state.verifier))
        items = [_document(facts, outcome) for facts, outcome in reversed(found.values())]
        return answer({"kind": "SessionRecordingList", "items": items})

    async def read(self, call: Call) -> web.StreamResponse:
        """One session, read to its end: its facts, its outcome, and whether all of it is genuine."""
        document: dict[str, Any] = {}
        parts, problem = 0, ""
        async with aclosing(self._events(call)) as lines:
            async for line in lines:
                if isinstance(line, Event):
                    continue
                document, parts, problem = line
        return answer(document | {"check": {"messages": parts, "problem": problem}})

    async def events(self, call: Call) -> web.StreamResponse:
        """Lines of JSON: the facts, then `[milliseconds, channel, base64]` for each event, then the facts again with the check."""
        response: web.StreamResponse | None = None
        async with aclosing(self._events(call)) as lines:
            async for line in lines:
                if response is None:
                    response = web.StreamResponse(
                        headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
                    )
                    response.enable_chunked_encoding()
                    await response.prepare(call.request)
                if isinstance(line, Event):
                    text = dump([line.at_ms, line.channel, base64.b64encode(line.data).decode("ascii")])
                else:
                    text = dump(line[0] | {"check": {"messages": line[1], "problem": line[2]}})
                await _send(call, response, text + b"\n")
        assert response is not None
        await response.write_eof()
        return response

    async def _events(self, call: Call) -> AsyncGenerator[Event | tuple[dict[str, Any], int, str], None]:
        """The facts, every event, and at the end the facts with outcome and check. Raises NotFound, Denied."""
        id_ = parse_id(call.path("name"))
        if not self._state.grants.current.reaches(call.principal, "get", PLURAL):
            raise self._denied(call, "get")
        opener = Opener(id_, self._state.verifier)
        parts, problem = 0, ""
        async with aclosing(self._stream.read(id_)) as stored:
            async for part in stored:
                try:
                    events = opener.open(part.data)
                except Broken as exc:
                    problem = exc.message
                    break
                parts += 1
                if parts == 1:
                    if opener.facts is None or not self._is_allowed(call, "get", opener.facts):
                        break
                    yield _document(opener.facts, None), parts, ""
                for event in events:
                    yield event
        if (
            problem
            and opener.facts is None
            and self._state.grants.current.is_allowed(call.principal, "get", PLURAL, id_)
        ):
            # Whose it is can't be known: only who may see all of them learns that something is wrong.
            raise Broken(problem)
        if opener.facts is None or not self._is_allowed(call, "get", opener.facts):
            raise errors.NotFound(f'there is no recording "{id_}"')
        yield _document(opener.facts, opener.outcome), parts, problem

    def _is_wanted(self, call: Call, facts: Facts) -> bool:
        user, cluster = call.query("user"), call.query("cluster")
        if (user and facts.user != user) or (cluster and facts.cluster != cluster):
            return False
        return self._is_allowed(call, "list", facts)

    def _is_allowed(self, call: Call, verb: str, facts: Facts) -> bool:
        grants = self._state.grants.current
        # A cluster's own role counts for the cluster that the session was in, not for a later one of the same name.
        cluster = facts.cluster if grants.clusters.get(facts.cluster) == facts.cluster_uid else ""
        return grants.is_allowed(call.principal, verb, PLURAL, facts.id if verb == "get" else "", cluster)

    def _denied(self, call: Call, verb: str) -> errors.Denied:
        return errors.Denied(f'user "{call.principal.user}" cannot {verb} recorded sessions', kind=PLURAL)


def _document(facts: Facts, outcome: Outcome | None) -> dict[str, Any]:
    return {
        "kind": "SessionRecording",
        "facts": facts.model_dump(mode="json", by_alias=True),
        "outcome": outcome.model_dump(mode="json", by_alias=True) if outcome is not None else None,
    }


def _since(call: Call) -> datetime | None:
    text = call.query("since")
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise errors.BadRequest("the parameter since must be a moment, such as 2026-01-31T08:00:00Z") from exc
    if moment.tzinfo is None:
        raise errors.BadRequest("the parameter since must name its time zone, such as 2026-01-31T08:00:00Z")
    return moment


async def _send(call: Call, response: web.StreamResponse, line: bytes) -> None:
    """One line. A client that takes nothing is cut off, as nothing else would end its reading. Raises ConnectionError."""
    try:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await response.write(line)
    except TimeoutError:
        if call.request.transport is not None:
            call.request.transport.abort()
        raise ConnectionResetError("the client takes nothing") from None
