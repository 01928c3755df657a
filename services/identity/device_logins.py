"""Letting a machine in: without a browser (after RFC 8628) it shows a short code, and a person who is signed in elsewhere gives that; with one of its own
(`loopback`) the code is in the address that it opens, and the answer takes the browser back to the machine.

Everything lies in the store with a time to live, so any replica answers. The machine's own code is a secret of 256 bits and is stored as a hash; the short one is
worth something only to who is signed in, for ten minutes, and tries cost a growing wait. An answer is fetched once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from libs.common import errors
from libs.common.access.principal import Principal
from libs.common.bus.base import Message
from libs.common.contracts import messages as m
from libs.common.crypto.envelope import Verifier
from libs.common.observe import log
from libs.common.resources.identity import User
from libs.common.store.base import Entry, Store
from libs.common.store.objects import read
from libs.common.store.record import pack_record, unpack_record
from services.identity import loopback
from services.identity.audit.attempts import Attempt
from services.identity.handlers import Handlers
from services.identity.sign_in import SignedIn
from services.identity.throttle import Throttle

LIFETIME_S = 600
INTERVAL_S = 5
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
"""No vowels, so that no words come out (RFC 8628 6.1)."""
_LENGTH = 8
_ENDED = "this code is unknown, or its time is over: begin again on the machine that shows it"


@dataclass(slots=True)
class DeviceLogins:
    """What the methods need; stateless but for the throttle."""

    store: Store
    handlers: Handlers
    verifier: Verifier
    throttle: Throttle
    now: Callable[[], datetime]

    async def begin(self, request: m.DeviceBegin, _message: Message) -> m.DeviceBegun:
        """A machine asks to be let in."""
        device_code = secrets.token_urlsafe(32)
        expires_at = self.now() + timedelta(seconds=LIFETIME_S)
        asked: dict[str, Any] = {
            "state": "pending",
            "description": request.description,
            "address": request.client_address,
        }
        if request.browser is not None:
            asked["browser"] = request.browser.model_dump()
        await self.store.create(_device_key(device_code), pack_record(asked), ttl_s=LIFETIME_S)
        for _ in range(5):
            user_code = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
            try:
                await self.store.create(
                    _user_key(user_code), pack_record({"device": _device_key(device_code)}), ttl_s=LIFETIME_S
                )
            except errors.AlreadyExists:
                continue
            shown = f"{user_code[:4]}-{user_code[4:]}"
            return m.DeviceBegun(device_code=device_code, user_code=shown, interval_s=INTERVAL_S, expires_at=expires_at)
        raise errors.Internal("no free code was found")

    async def look(self, request: m.DeviceAnswer, _message: Message) -> m.DeviceShown:
        """What asks, for the person who is to decide; with an `answer`, the decision. Raises NotFound."""
        principal = self.verifier.open(request.identity)
        action = "answer-device" if request.answer else "look-at-device"
        async with self.handlers.attempts.begin(action, caller=principal) as attempt:
            return await self._look(principal, request, attempt)

    async def _look(self, principal: Principal, request: m.DeviceAnswer, attempt: Attempt) -> m.DeviceShown:
        if principal.is_scoped or principal.read_only:
            raise errors.Denied("a restricted token lets nobody in: sign in")
        user = await read(self.store, User, principal.user)
        if user.uid != principal.user_uid:
            raise errors.Unauthenticated("your user is gone: sign in again")
        attempt.is_about(user)
        code = "".join(c for c in request.user_code.upper() if c in _LETTERS)
        with self.throttle.guess(f"device/{user.name}", ""):
            key, asked, revision = await self._find(code, request.browser)
        attempt.note = f"a machine at {asked['address']}"
        redirect, lifetime_s = "", LIFETIME_S
        if request.answer:
            token = await self.handlers.read_sign_in(principal.token)
            decided = {
                **asked,
                "state": request.answer,
                "user": user.name,
                "uid": user.uid,
                "provider": token.spec.provider,
                "session": token.private.provider_session,
            }
            if token.spec.purpose != "session":
                # A machine that lets in machines: or a sign-in would go on for ever by letting in itself.
                decided["until"] = int(token.spec.expires_at.timestamp())
            if request.browser:
                answered = loopback.answer(asked["browser"], request.answer, self.now())
                decided["browser"], redirect, lifetime_s = answered.kept, answered.redirect, loopback.CODE_LIFETIME_S
            try:
                await self.store.update(key, pack_record(decided), revision, ttl_s=lifetime_s)
            except errors.Conflict as exc:
                raise errors.Conflict("it was answered already") from exc
            attempt.reason = "approved" if request.answer == "approve" else "refused"
            log.get("identity").info(
                "device_answered", user=user.name, answer=request.answer, client_address=asked["address"],
                browser=request.browser,
            )  # fmt: skip
        return m.DeviceShown(description=asked["description"], client_address=asked["address"], redirect=redirect)

    async def fetch(self, request: m.DeviceFetch, _message: Message) -> m.DeviceFetched:
        """The machine asks again and again. The token is given once. Raises NotFound when its time is over, Denied when it was refused."""
        key = _device_key(request.device_code)
        try:
            entry = await self.store.get(key)
        except errors.NotFound as exc:
            raise errors.NotFound(_ENDED) from exc
        asked = unpack_record(entry)
        if asked["state"] == "pending":
            return m.DeviceFetched()
        async with self.handlers.attempts.begin(
            "sign-in", address=request.client_address, provider=asked.get("provider", "")
        ) as attempt:
            attempt.account, attempt.resource, attempt.name = asked["user"], "users", asked["user"]
            return m.DeviceFetched(issued=await self._let_in(request, entry, asked, attempt))

    async def _let_in(
        self, request: m.DeviceFetch, entry: Entry, asked: dict[str, Any], attempt: Attempt
    ) -> m.IssuedToken:
        try:
            # Whoever takes it away first has it.
            await self.store.delete(entry.key, b"", entry.revision)
        except (errors.Conflict, errors.NotFound) as exc:
            raise errors.NotFound(_ENDED) from exc
        if asked["state"] != "approve":
            raise errors.Denied("the person refused to let this machine in", why="refused_by_person")
        if kept := asked.get("browser"):
            # After it was taken away: there is one try.
            loopback.check(kept, request.code, request.code_verifier, self.now())
        user = await self.handlers.find_usable(asked["user"], asked["uid"])
        issued = await self.handlers.let_in(
            SignedIn(user, asked["provider"], session=asked.get("session", ""), until=_moment(asked.get("until"))),
            session=False,
            description=asked["description"],
            address=request.client_address,
        )
        attempt.proved(user)
        attempt.reason = "browser" if asked.get("browser") else "device_code"
        attempt.gave(issued.name)
        return issued

    async def _find(self, code: str, browser: bool) -> tuple[str, dict[str, Any], int]:
        """The machine that asks with this code, in this way. Raises NotFound."""
        try:
            key = str(unpack_record(await self.store.get(_user_key(code)))["device"]) if len(code) == _LENGTH else ""
            entry = await self.store.get(key) if key else None
        except errors.NotFound:
            entry = None
        asked = unpack_record(entry) if entry is not None else {}
        # An address with the code of a machine elsewhere must not stand for the person who would have to type it.
        if entry is None or asked["state"] != "pending" or ("browser" in asked) is not browser:
            raise errors.NotFound(_ENDED)
        return entry.key, asked, entry.revision


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _device_key(device_code: str) -> str:
    return f"devices.{hashlib.sha256(device_code.encode('utf-8')).hexdigest()[:40]}"


def _user_key(user_code: str) -> str:
    return f"devicecodes.{user_code.lower()}"
