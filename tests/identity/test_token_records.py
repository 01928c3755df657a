"""Who has which tokens: exact on several replicas, whole after any interruption, and complete for what older versions made."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgpack
import pytest

from libs.common import errors
from libs.common.access.token_record import read_progress, record_key
from libs.common.resources import codec
from libs.common.resources.identity import Token, TokenSpec
from libs.common.store.informer import Change
from libs.common.store.memory import MemoryStore
from services.identity import adoption
from services.identity.adoption import Adoption
from services.identity.sweeper import TokenSweeper, keys_of_user
from services.identity.tokens import SIGN_INS, Lifetimes, Tokens
from tests.access import made
from tests.identity.recorder import attempts_of
from tests.identity.service import running

ADA, BOB, EVE = made.user("ada"), made.user("bob"), made.user("eve")


class Replicas:
    """Two identities on one store. `older` writes tokens as a version does that knows no records."""

    def __init__(self, clock, store=None, per_user=100):
        self.clock, self.store = clock, store or MemoryStore("identity")
        self.here, self.there = (Tokens(self.store, clock, Lifetimes(), per_user) for _ in range(2))

    async def older(self, name, who, **spec):
        fields = {"user": who.name, "user_uid": who.uid, "expires_at": self.clock() + timedelta(days=1), **spec}
        meta = made.meta(name, created=self.clock())
        await self.store.create(f"tokens.{name}", codec.encode(Token(metadata=meta, spec=TokenSpec(**fields))))

    async def older_delete(self, name):
        entry = await self.store.get(f"tokens.{name}")
        return await self.store.delete(entry.key, entry.value, entry.revision)

    async def stored(self, who):
        """Names of the user's tokens as the store has them."""
        tokens = [codec.decode(Token, e.value, e.revision) async for e in self.store.scan("tokens") if not e.deleted]
        return {token.name for token in tokens if token.spec.user_uid == who.uid}

    async def recorded(self, who):
        return set((await self.here.records.read(who.uid)).tokens)


@pytest.fixture
def replicas(clock):
    return Replicas(clock)


class Racing(MemoryStore):
    """Lets others come between a read and the write that was made from it."""

    async def get(self, key):
        entry = await super().get(key)
        await asyncio.sleep(0)
        return entry


async def test_the_cap_is_exact_when_two_replicas_issue_for_one_user_at_once(clock):
    replicas = Replicas(clock, Racing("identity"), per_user=7)
    attempts = [tokens.issue(ADA, "api") for _ in range(8) for tokens in (replicas.here, replicas.there)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    issued = {outcome.name for outcome in outcomes if not isinstance(outcome, BaseException)}
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert len(issued) == 7
    assert all(isinstance(error, errors.TooManyRequests) for error in refused)
    assert await replicas.stored(ADA) == await replicas.recorded(ADA) == issued


async def test_sign_ins_on_two_replicas_make_room_for_each_other_and_never_exceed_the_cap(clock):
    replicas = Replicas(clock, Racing("identity"), per_user=3)
    await asyncio.gather(*(t.issue(ADA, "login") for _ in range(5) for t in (replicas.here, replicas.there)))
    assert len(await replicas.stored(ADA)) == 3
    assert await replicas.stored(ADA) == await replicas.recorded(ADA)


async def test_a_session_that_is_used_is_not_the_oldest_sign_in_and_is_not_swept(clock):
    async with running(clock, per_user=2) as s:
        session = await s.tokens.issue(ADA, "session")
        for _ in range(7):
            clock.forward(1.5 * 3600)
            await s.tokens.extend(session.name)
        assert await s.sweep() == {ADA.uid}
        assert await s.sweep() == set()
        login = await s.tokens.issue(ADA, "login", ttl_s=600)
        await s.tokens.issue(ADA, "login")
        assert await s.token(session.name)
        with pytest.raises(errors.NotFound):
            await s.token(login.name)


async def test_all_tokens_of_a_user_are_revoked_those_issued_elsewhere_too(replicas):
    here, there = await replicas.here.issue(ADA, "api"), await replicas.there.issue(ADA, "login")
    await replicas.older("old", ADA)
    bobs = await replicas.there.issue(BOB, "api")
    assert await replicas.here.revoke_all(ADA.uid, keep=here.name) == 2
    assert await replicas.stored(ADA) == {here.name}
    assert await replicas.here.revoke_all(ADA.uid) == 1
    assert await replicas.recorded(ADA) == set()
    assert await replicas.stored(BOB) == {bobs.name}
    assert not await replicas.here.revoke(there.name)
    with pytest.raises(errors.NotFound):
        await replicas.store.get(record_key(ADA.uid))


async def test_more_tokens_than_one_batch_takes_are_all_revoked(clock):
    replicas = Replicas(clock, per_user=300)
    for _ in range(250):
        await replicas.here.issue(ADA, "api")
    assert await replicas.there.revoke_all(ADA.uid) == 250
    assert await replicas.stored(ADA) == set()


async def test_only_the_sign_ins_or_only_those_of_one_provider_are_revoked(replicas):
    login, api = await replicas.here.issue(ADA, "login", provider="corp"), await replicas.here.issue(ADA, "api")
    session = await replicas.here.issue(ADA, "session")
    elsewhere = await replicas.here.issue(BOB, "login", provider="corp")
    assert await replicas.there.revoke_all(ADA.uid, purposes=SIGN_INS, keep=login.name) == 1
    assert await replicas.stored(ADA) == {login.name, api.name}
    assert session.name not in await replicas.recorded(ADA)
    assert await replicas.there.revoke_of_provider("corp") == 2
    assert await replicas.stored(ADA) == {api.name}
    assert elsewhere.name not in await replicas.stored(BOB)


async def test_a_token_issued_while_all_are_revoked_is_in_the_record_or_refused(clock):
    replicas = Replicas(clock, Racing("identity"))
    for _ in range(5):
        await replicas.here.issue(ADA, "api")
    await asyncio.gather(replicas.here.revoke_all(ADA.uid), *(replicas.there.issue(ADA, "api") for _ in range(3)))
    assert await replicas.stored(ADA) == await replicas.recorded(ADA)


# ── interrupted writes ──


class Interrupted(MemoryStore):
    """Stops before, or right after, the write that is `left` writes away."""

    def __init__(self, *, after):
        super().__init__("identity")
        self.left, self._after = 10**9, after

    async def batch(self, writes):
        return await self._interrupted(super().batch(writes))

    async def create(self, key, value, *, ttl_s=None):
        return await self._interrupted(super().create(key, value, ttl_s=ttl_s))

    async def update(self, key, value, revision, *, ttl_s=None):
        return await self._interrupted(super().update(key, value, revision, ttl_s=ttl_s))

    async def delete(self, key, last, revision):
        return await self._interrupted(super().delete(key, last, revision))

    async def _interrupted(self, write):
        self.left -= 1
        if self.left < 0 and not self._after:
            write.close()
            raise errors.Unavailable("the plug was pulled")
        revision = await write
        if self.left < 0:
            raise errors.Timeout("the plug was pulled before the answer")
        return revision


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("writes", [0, 1, 2, 3])
async def test_a_write_that_is_cut_short_leaves_no_token_without_record_and_no_record_without_token(
    clock, after, writes
):
    store = Interrupted(after=after)
    replicas = Replicas(clock, store)
    parent = await replicas.here.issue(ADA, "login")
    store.left = writes

    async def work():
        await replicas.here.issue(ADA, "exec", parent=parent.name)
        await replicas.here.issue(ADA, "api")
        await replicas.here.revoke(parent.name)
        await replicas.here.revoke_all(ADA.uid)

    with pytest.raises((errors.Unavailable, errors.Timeout)):
        await work()
    assert await replicas.stored(ADA) == await replicas.recorded(ADA)


async def test_a_record_that_names_a_token_that_is_gone_is_put_right(replicas):
    kept, gone = await replicas.here.issue(ADA, "api"), await replicas.here.issue(ADA, "api")
    await replicas.here.adoption.catch_up()
    await replicas.older_delete(gone.name)
    await replicas.there.adoption.catch_up()
    assert await replicas.recorded(ADA) == {kept.name}


async def test_a_token_that_no_record_names_is_named_and_counts(clock):
    replicas = Replicas(clock, per_user=2)
    await replicas.here.adoption.catch_up()
    await replicas.older("old", ADA, provider="corp", parent="p", purpose="exec")
    await replicas.here.issue(ADA, "api")
    await replicas.there.adoption.catch_up()
    record = await replicas.here.records.read(ADA.uid)
    assert (record.user, record.tokens["old"].provider, record.tokens["old"].parent) == ("ada", "corp", "p")
    with pytest.raises(errors.TooManyRequests):
        await replicas.here.issue(ADA, "api")


# ── what older versions made ──


async def test_tokens_from_before_are_adopted_page_by_page_and_once(clock, replicas):
    for number in range(25):
        await replicas.older(f"a{number}", ADA)
        await replicas.older(f"b{number}", BOB)
    deleted = await replicas.older_delete("b0")
    await Adoption(replicas.store, replicas.here.records, clock, page=7).catch_up()
    assert await replicas.recorded(ADA) == await replicas.stored(ADA)
    assert await replicas.recorded(BOB) == await replicas.stored(BOB)
    revision = replicas.store._revision
    await replicas.there.adoption.catch_up()
    assert replicas.store._revision == revision
    progress = await read_progress(replicas.store)
    assert progress is not None
    assert (progress.revision, progress.began) == (deleted, clock())


async def test_what_was_not_finished_is_begun_again(clock):
    store = Interrupted(after=False)
    replicas = Replicas(clock, store)
    for who in (ADA, BOB, EVE):
        await replicas.older(f"of-{who.name}", who)
    store.left = 1
    with pytest.raises(errors.Unavailable):
        await replicas.here.adoption.catch_up()
    assert await read_progress(store) is None
    store.left = 10**9
    await replicas.there.adoption.catch_up()
    for who in (ADA, BOB, EVE):
        assert await replicas.recorded(who) == {f"of-{who.name}"}


async def test_a_use_that_is_written_down_is_no_reason_to_look_at_a_record_again(clock, replicas, monkeypatch):
    issued = await replicas.here.issue(ADA, "session")
    await replicas.here.adoption.catch_up()
    clock.forward(adoption.SKEW.total_seconds() + 60)
    await replicas.here.adoption.catch_up()
    await replicas.here.extend(issued.name)
    await replicas.here.adoption.catch_up()
    clock.forward(60)
    await replicas.here.extend(issued.name)
    reads: list[str] = []
    read = replicas.here.records.read

    async def counted(uid, user=""):
        reads.append(uid)
        return await read(uid, user)

    monkeypatch.setattr(replicas.here.records, "read", counted)
    await replicas.here.adoption.catch_up()
    assert reads == []


async def test_a_token_that_cannot_be_read_stops_nobody(replicas):
    await replicas.store.create("tokens.broken", b"\xc1 no msgpack")
    await replicas.older("old", ADA)
    await replicas.here.adoption.catch_up()
    assert await replicas.recorded(ADA) == {"old"}


# ── users that are gone ──


async def test_a_user_who_is_gone_or_made_again_is_found_by_uid(clock):
    async with running(clock) as s:
        changes: list[Change] = []
        s.hub.informers["users"].subscribe(changes.append, replay=False)
        await s.hub.delete(BOB)
        await s.hub.put(made.user("bob", "uid-of-another-bob"))
        assert [uid for change in changes for uid in keys_of_user(change)] == [BOB.uid]
        both = Change("users.bob", changes[0].before, changes[1].after, changes[1].last)
        assert list(keys_of_user(both)) == [BOB.uid]


async def test_a_copy_of_users_that_is_behind_costs_nobody_a_token(clock):
    async with running(clock) as s:
        token = await s.tokens.issue(ADA, "api")

        class Empty:
            def get(self, _name):
                return None

        sweeper = TokenSweeper(s.hub.stores["identity"], s.tokens.records, Empty(), clock, attempts_of(s.hub))
        found: set[str] = set()
        await sweeper.look(found.add)
        assert found == {ADA.uid}
        await sweeper.reconcile(ADA.uid)
        assert await s.token(token.name)


async def test_a_record_says_of_which_session_at_the_provider_a_token_is_and_is_read_by_older_versions(replicas):
    here = replicas.here
    plain = await here.issue(ADA, "login", provider="sso")
    named = await here.issue(ADA, "session", provider="sso", provider_session="d1")
    record = await here.records.read(ADA.uid)
    assert [record.tokens[t.name].session for t in (plain, named)] == ["", "d1"]
    stored = msgpack.unpackb((await replicas.store.get(record_key(ADA.uid))).value)["object"]["tokens"]
    # An older version takes the first four, and writes records of four.
    assert [len(stored[t.name]) for t in (plain, named)] == [4, 5]
    assert await here.revoke_all(ADA.uid, provider="sso", session="d2") == 1
    assert await replicas.stored(ADA) == {named.name}
    assert await here.revoke_all(ADA.uid, provider="sso", session="d1") == 1
