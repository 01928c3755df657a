"""What the front door knows of tokens: only those that are used, read from the store when they first come, forgotten when they change.

`authenticate` asks here. However many tokens are stored, this holds a bounded number of them and lists none. A change is told by the
store's `changes` within milliseconds; after any interruption of it everything is forgotten, so that no revocation can be missed.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import aclosing

import structlog

from libs.common import errors
from libs.common.resources import codec
from libs.common.resources.identity import Token
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Entry, Store

TOKENS = BY_MODEL[Token].plural
MOST = 50_000
"""Tokens that are remembered; with what is made ready for each it is the front door's memory for callers."""
MOST_BYTES = 64 * 1024 * 1024
MOST_ABSENT = 10_000
ABSENT_S = 2.0
"""How long a name that no token has is not asked for again. A token that is made meanwhile under it is told by the store."""
AT_ONCE = 64
MOST_WAITING = 2_000
"""Different names that are being read or wait for it; more are refused for a moment, so that made-up names fill nothing."""
READ_S = 5.0
TRIES = 4
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_BASE_BYTES = 1024
_SECOND_CHANCES = 64
_PAUSE_S = 1.0


class NotRemembered(Exception):
    """Nothing is known of the token `name` yet: fetch it and ask again."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Fact:
    """What of a token matters for letting a call in. `used` is the one thing that changes: when it was used last, in Unix seconds."""

    __slots__ = (
        "clusters", "expires", "idle_s", "name", "parent", "projects", "provider", "purpose", "ranked", "read_only", "reported", "secret_hash", "used", "user",
        "user_uid", "weight",
    )  # fmt: skip

    def __init__(self, token: Token, size_bytes: int) -> None:
        spec = token.spec
        self.name = token.name
        self.user = spec.user
        self.user_uid = spec.user_uid
        self.provider = spec.provider
        self.purpose = spec.purpose
        self.parent = spec.parent
        self.clusters = spec.clusters
        self.projects = spec.projects
        self.read_only = spec.read_only
        self.expires = spec.expires_at.timestamp()
        self.secret_hash = token.private.secret_hash.encode("ascii")
        self.weight = _BASE_BYTES + size_bytes
        self.idle_s = spec.idle_seconds
        last = token.status.last_used or token.metadata.creation_timestamp
        self.used = self.ranked = self.reported = last.timestamp() if last is not None else 0.0

    def is_idle(self, moment: float) -> bool:
        """Whether it was unused for longer than it may be."""
        return bool(self.idle_s) and moment - self.used >= self.idle_s


class _Reading:
    """One read under way, for all who wait for that name."""

    __slots__ = ("changed", "task")

    def __init__(self) -> None:
        self.changed = False
        self.task: asyncio.Task[None]


class TokenCache:
    """Invariant: while `changes` is live, what is remembered is what the store holds; at most `most` tokens and `most_bytes` of them.

    `on_forget` is told of each name whose fact is gone, and of "" when all are; `on_change` only when a right may be gone with it.
    """

    def __init__(
        self,
        store: Store,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        most: int = MOST,
        most_bytes: int = MOST_BYTES,
        at_once: int = AT_ONCE,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self.revision = 0
        """Of the newest write that was told of."""
        self.live = asyncio.Event()
        self.on_forget: list[Callable[[str], None]] = []
        self.on_change: list[Callable[[], None]] = []
        self.reads = 0
        self._store = store
        self._monotonic = monotonic
        self._most = most
        self._most_bytes = most_bytes
        self._most_waiting = most_waiting
        self._facts: OrderedDict[str, Fact] = OrderedDict()
        self._bytes = 0
        self._absent: OrderedDict[str, float] = OrderedDict()
        self._uses: dict[str, float] = {}
        self._reading: dict[str, _Reading] = {}
        self._slots = asyncio.Semaphore(at_once)
        self._log = structlog.get_logger().bind(logger="token_cache")

    def __len__(self) -> int:
        return len(self._facts)

    def find(self, name: str) -> Fact | None:
        """The token's fact; None when there is no such token. Raises NotRemembered."""
        fact = self._facts.get(name)
        if fact is not None:
            return fact
        until = self._absent.get(name)
        if until is not None:
            if self._monotonic() < until:
                return None
            del self._absent[name]
        if _NAME.fullmatch(name) is None:
            return None
        raise NotRemembered(name)

    async def fetch(self, name: str) -> None:
        """Make sure that `find` knows the name, for now. Raises Unavailable when the store does not answer, or too many are asked for."""
        reading = self._reading.get(name)
        if reading is None:
            if len(self._reading) >= self._most_waiting:
                raise errors.Unavailable(
                    "too many tokens that were not used lately come at once: try again in a second", retry_after_s=1
                )
            reading = self._reading[name] = _Reading()
            reading.task = asyncio.create_task(self._read(name, reading), name="token-read")
            reading.task.add_done_callback(_look_at)
        # One that goes away does not take the read from the others.
        await asyncio.shield(reading.task)

    def take_uses(self) -> dict[str, float]:
        """Every use since the last time this was asked, also of tokens that are forgotten: name → Unix seconds."""
        for fact in self._facts.values():
            self._keep_use(fact)
        uses, self._uses = self._uses, {}
        return uses

    def keep_uses(self, uses: dict[str, float]) -> None:
        """They were taken, and could not be told."""
        for name, at in uses.items():
            if len(self._uses) < self._most:
                self._uses[name] = max(at, self._uses.get(name, 0.0))

    def _keep_use(self, fact: Fact) -> None:
        if fact.used > fact.reported:
            fact.reported = fact.used
            self.keep_uses({fact.name: fact.used})

    async def run(self) -> None:
        """Follow what changes, for ever. For `Host.spawn`."""
        while True:
            try:
                await self._follow()
            except errors.HerdsmanError as exc:
                self._log.warning("token_changes_interrupted", error=exc.message)
            await asyncio.sleep(_PAUSE_S)

    async def close(self) -> None:
        """End what is being read."""
        tasks = [reading.task for reading in self._reading.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _follow(self) -> None:
        listing = 0
        async with aclosing(self._store.changes(TOKENS, name="auth_proxy-tokens")) as items:
            async for item in items:
                if isinstance(item, Entry):
                    self._changed(item)
                elif item.listing != listing:
                    listing = item.listing
                    self._forget_all()
                    self.live.set()
                    self.revision = item.revision
                else:
                    self.revision = max(self.revision, item.revision)

    def _changed(self, entry: Entry) -> None:
        name = entry.key.partition(".")[2]
        reading = self._reading.get(name)
        if reading is not None:
            reading.changed = True
        self._absent.pop(name, None)
        self._forget(name)
        self.revision = entry.revision
        for told in self.on_change:
            told()

    def _forget_all(self) -> None:
        """Something may have been missed: nothing that was read before now counts, nor what is being read."""
        for reading in self._reading.values():
            reading.changed = True
        for fact in self._facts.values():
            self._keep_use(fact)
        self._facts.clear()
        self._absent.clear()
        self._bytes = 0
        for told in self.on_forget:
            told("")
        for changed in self.on_change:
            changed()

    def _forget(self, name: str) -> None:
        fact = self._facts.pop(name, None)
        if fact is not None:
            self._bytes -= fact.weight
            self._keep_use(fact)
        # Also when nothing was remembered: a token may hang on one that is not.
        for told in self.on_forget:
            told(name)

    async def _read(self, name: str, reading: _Reading) -> None:
        try:
            async with asyncio.timeout(READ_S), self._slots:
                for _ in range(TRIES):
                    reading.changed = False
                    self.reads += 1
                    try:
                        entry = await self._store.get(f"{TOKENS}.{name}")
                    except errors.NotFound:
                        if not reading.changed:
                            self._remember_absent(name)
                            return
                        continue
                    # What was told of while the answer was on its way may be newer than the answer.
                    if not reading.changed:
                        self._remember(name, entry)
                        return
        except (TimeoutError, errors.Timeout) as exc:
            raise errors.Unavailable("the token could not be looked up in time: try again", retry_after_s=1) from exc
        finally:
            # Here, not when the task is seen to be done: whoever asks between the two would wait for nothing, for ever.
            self._reading.pop(name, None)
        raise errors.Unavailable("the token changes faster than it can be read: try again", retry_after_s=1)

    def _remember(self, name: str, entry: Entry) -> None:
        try:
            token = codec.decode(Token, entry.value, entry.revision)
        except (ValueError, KeyError, TypeError) as exc:
            # As the codec says it of bytes: an answer to this call, and never the end of the review of all others.
            raise errors.Internal("a stored token cannot be read: its fields are not a token's") from exc
        if token.deleting or not token.private.secret_hash:
            self._remember_absent(name)
            return
        fact = Fact(token, len(entry.value))
        # A use here that nobody wrote down yet counts as one.
        fact.used = max(fact.used, self._uses.get(name, 0.0))
        self._facts[name] = fact
        self._bytes += fact.weight
        chances = _SECOND_CHANCES
        while len(self._facts) > self._most or (self._bytes > self._most_bytes and len(self._facts) > 1):
            oldest, old = next(iter(self._facts.items()))
            if chances and old.used > old.ranked and old is not fact:
                # Used since it was last looked at here: it goes to the end. Calls themselves move nothing.
                chances -= 1
                old.ranked = old.used
                self._facts.move_to_end(oldest)
            else:
                self._forget(oldest)

    def _remember_absent(self, name: str) -> None:
        self._absent[name] = self._monotonic() + ABSENT_S
        self._absent.move_to_end(name)
        while len(self._absent) > MOST_ABSENT:
            self._absent.popitem(last=False)


def _look_at(task: asyncio.Task[None]) -> None:
    """Whoever waited for the read may be gone: its error is nobody's then."""
    if not task.cancelled():
        task.exception()
