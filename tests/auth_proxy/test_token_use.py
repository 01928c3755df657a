"""The front door knows which tokens are used: it reports them beside the calls, and refuses those that were unused for too long."""

from __future__ import annotations

import datetime as dt

from libs.common import errors
from libs.common.contracts.methods import NOTE_TOKEN_USE
from libs.common.resources import codec
from libs.common.resources.identity import Token
from libs.common.store.memory import MemoryStore
from services.auth_proxy.token_cache import TokenCache
from services.auth_proxy.token_reports import TokenReports
from tests.auth_proxy.test_known_blocks import PATH, name_of
from tests.auth_proxy.test_token_cache import add, known, remembering, remove
from tests.store.watching import eventually


class Identity:
    """Takes reports as identity does, or refuses them."""

    def __init__(self) -> None:
        self.reports: list[dict[str, float]] = []
        self.up = True

    async def request(self, subject, said, reply, *, timeout_s):
        assert subject == NOTE_TOKEN_USE.subject
        if not self.up:
            raise errors.Unavailable("identity does not answer")
        self.reports.append({use.name: use.at.timestamp() for use in said.uses})
        return reply()


def use(cache: TokenCache, name: str, at: float) -> None:
    fact = cache.find(name)
    assert fact is not None
    fact.used = at


async def test_what_was_used_is_reported_once_also_when_it_is_forgotten():
    store, identity = MemoryStore("identity"), Identity()
    for name in ("t1", "t2", "t3"):
        await add(store, name)
    async with remembering(store) as cache:
        reports = TokenReports(cache, identity)
        for name in ("t1", "t2", "t3"):
            assert await known(cache, name)
        use(cache, "t1", 4e9)
        use(cache, "t2", 4e9 + 1)
        await remove(store, "t2")
        await eventually(lambda: len(cache) == 2)
        await reports.report()
        await reports.report()
        assert identity.reports == [{"t1": 4e9, "t2": 4e9 + 1}]


async def test_a_report_that_was_not_taken_is_made_again():
    store, identity = MemoryStore("identity"), Identity()
    await add(store, "t1")
    async with remembering(store) as cache:
        reports = TokenReports(cache, identity)
        assert await known(cache, "t1")
        use(cache, "t1", 4e9)
        identity.up = False
        await reports.report()
        identity.up = True
        await reports.report()
        assert identity.reports == [{"t1": 4e9}]


async def test_a_use_that_is_not_written_yet_outlives_being_forgotten():
    store = MemoryStore("identity")
    await add(store, "t1")
    async with remembering(store) as cache:
        assert await known(cache, "t1")
        use(cache, "t1", 4e9)
        store.interrupt()
        await eventually(lambda: len(cache) == 0)
        assert await known(cache, "t1")
        assert cache.find("t1").used == 4e9


async def test_a_token_that_was_unused_for_longer_than_it_may_be_is_refused_and_one_in_use_is_not(door, echo):
    person = await door.user("ada")
    await door.member()
    token = await door.token(person, "idle", idle_seconds=600)
    async with door.agent("prod", echo.address):
        assert (await door.get(PATH, token)).status == 200
        store = door.stores["identity"]
        entry = await store.get(f"tokens.{name_of(token)}")
        stored = codec.decode(Token, entry.value, entry.revision)
        stored.metadata.name = "unused"
        stored.metadata.creation_timestamp = dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)
        stored.status.last_used = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=601)
        await door.put(stored)
        assert (await door.get(PATH, token.replace("_idle_", "_unused_"))).status == 401
        stored.status.last_used = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=300)
        await door.put(stored)
        assert (await door.get(PATH, token.replace("_idle_", "_unused_"))).status == 200
        assert (await door.get(PATH, token)).status == 200
