"""Open streams of whoever lost the right to them are cut: watches, logs, exec and port-forwards included. Only a change that the
gateway already has is let through to its answer.

`Revoker.wake` is called on every change of tokens, users, clusters and grants; the look itself runs once, soon after. Calls are
grouped by token and cluster, so it costs one decision for each such pair and none for each stream.
"""

from __future__ import annotations

import asyncio

import structlog

from libs.common import errors
from libs.common.access.live import HasGrants
from libs.common.access.owed import explain
from services.auth_proxy.authenticate import Authenticator, Caller
from services.auth_proxy.calls import Call, Calls, Key
from services.auth_proxy.token_cache import NotRemembered

_TICK_S = 0.5
_PAIRS_AT_A_TIME = 200
_READS_AT_A_TIME = 32


class Revoker:
    def __init__(self, calls: Calls, authenticator: Authenticator, grants: HasGrants) -> None:
        self._calls = calls
        self._authenticator = authenticator
        self._grants = grants
        self._changed = asyncio.Event()
        self._log = structlog.get_logger().bind(logger="revocation")

    def wake(self) -> None:
        """Something changed that may take a right away."""
        self._changed.set()

    async def run(self) -> None:
        """Look after each change, and every half second for what expired, for ever."""
        while True:
            try:
                async with asyncio.timeout(_TICK_S):
                    await self._changed.wait()
            except TimeoutError:
                await self.review()
                continue
            self._changed.clear()
            await self.review()

    async def review(self) -> None:
        """Cut every call that would not be let in now. What can't be looked up now stays open, and is looked at again."""
        unknown: list[Key] = []
        for number, key in enumerate(list(self._calls.open), 1):
            streams = self._calls.open.get(key)
            if streams:
                try:
                    self._review_pair(self._authenticator.resolve(key[0]), list(streams))
                except NotRemembered:
                    unknown.append(key)
            if number % _PAIRS_AT_A_TIME == 0:
                await asyncio.sleep(0)
        for start in range(0, len(unknown), _READS_AT_A_TIME):
            await asyncio.gather(*(self._review_unknown(key) for key in unknown[start : start + _READS_AT_A_TIME]))

    async def _review_unknown(self, key: Key) -> None:
        try:
            caller = await self._authenticator.find(key[0])
        except errors.HerdsmanError as exc:
            self._log.info("review_put_off", token=key[0], reason=exc.message)
            return
        streams = self._calls.open.get(key)
        if streams:
            self._review_pair(caller, list(streams))

    def _review_pair(self, caller: Caller | None, streams: list[Call]) -> None:
        grants = self._grants.current
        for call in streams:
            before = call.caller
            if call.is_handed_over:
                # It was allowed when it came and ends by itself within the limit of its route; sign-out is one of these.
                continue
            if caller is None or before is None or caller.principal.user_uid != before.principal.user_uid:
                call.cut(
                    errors.Unauthenticated(
                        "the token of this call was revoked or has expired, or its user was disabled"
                    )
                )
            elif caller.principal.owes and not before.principal.owes:
                call.cut(errors.Denied(explain(caller.principal.owes)))
            elif not call.cluster and not set(before.principal.group_ids) <= set(caller.principal.group_ids):
                call.cut(errors.Denied("a group that this call was let in with is no longer the caller's"))
            elif call.cluster and not call.groups <= caller.block(grants, call.cluster, call.cluster_uid).groups:
                call.cut(
                    errors.Denied(f'a role that this call was let in with in cluster "{call.cluster}" was taken away')
                )
            else:
                call.review(caller, grants)
