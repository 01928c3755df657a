from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from libs.common import errors
from libs.common.contracts import messages as m
from libs.common.resources.identity import Group, User
from services.identity.bootstrap import ensure_local_provider
from services.identity.provider_handlers import ProviderHandlers
from services.identity.throttle import Throttle
from tests.access import made
from tests.identity.service import ADA, BOB, MESSAGE, PASSWORD, running
from tests.identity.test_accounts import provider


@asynccontextmanager
async def handlers_of(clock):
    async with running(clock, bindings=(made.binding(ADA, "admin", everywhere=True),)) as s:
        await ensure_local_provider(s.hub.stores["identity"], clock)
        await s.hub.put(provider())
        await s.hub.settle()
        s.directory.add("adam", PASSWORD)
        yield (
            s,
            ProviderHandlers(
                s.providers,
                s.hub.objects(User),
                s.hub.objects(Group),
                s.hub.verifier,
                s.hub.live,
                Throttle(lambda: 0.0),
            ),
        )


async def search(s, handlers, text="ada", who=ADA, **more):
    return await handlers.search(m.PrincipalSearch(identity=s.hub.envelope(who), text=text, **more), MESSAGE)


async def test_a_search_finds_local_users_and_those_of_every_provider(clock):
    async with handlers_of(clock) as (s, handlers):
        found = await search(s, handlers)
        assert {p.principal_id for p in found.principals} == {f"local:user:{ADA.uid}", "corp:user:id-adam"}
        groups = await search(s, handlers, "staff", kind="group")
        assert [p.principal_id for p in groups.principals] == ["corp:group:g-staff"]


async def test_a_search_finds_the_hubs_own_groups(clock):
    async with handlers_of(clock) as (s, handlers):
        await s.hub.put(Group.model_validate({"metadata": made.meta("adams"), "spec": {"displayName": "The Adams"}}))
        found = (await search(s, handlers)).principals
        assert ("local:group:uid-adams", "group") in {(p.principal_id, p.kind) for p in found}
        only = (await search(s, handlers, "THE ADA", kind="group", provider="local")).principals
        assert [p.principal_id for p in only] == ["local:group:uid-adams"]
        assert "local:group:uid-adams" not in {
            p.principal_id for p in (await search(s, handlers, kind="user")).principals
        }


async def test_a_provider_that_does_not_answer_is_named(clock):
    async with handlers_of(clock) as (s, handlers):
        s.directory.problem = errors.Unavailable("it is away")
        found = await search(s, handlers)
        assert [p.provider for p in found.principals] == ["local"]
        assert found.notices == ['"corp" could not be searched: it is away']


async def test_more_than_the_limit_is_told(clock):
    async with handlers_of(clock) as (s, handlers):
        found = await search(s, handlers, limit=1)
        assert len(found.principals) == 1
        assert found.notices == ["there are more than 1: give more of the name"]


async def test_only_who_may_give_roles_searches_and_only_who_may_change_a_provider_tests_it(clock):
    async with handlers_of(clock) as (s, handlers):
        with pytest.raises(errors.Denied, match="cannot search"):
            await search(s, handlers, who=BOB)
        with pytest.raises(errors.Denied, match="cannot test"):
            await handlers.test(m.ProviderTest(identity=s.hub.envelope(BOB), provider="corp"), MESSAGE)


async def test_a_try_shows_who_somebody_is_and_lets_nobody_in(clock):
    async with handlers_of(clock) as (s, handlers):

        async def attempt(password: str) -> m.ProviderTested:
            request = m.ProviderTest(identity=s.hub.envelope(ADA), provider="corp", user="adam", password=password)
            return await handlers.test(request, MESSAGE)

        shown = await attempt(PASSWORD)
        assert (shown.ok, shown.principal_id, shown.groups) == (True, "corp:user:id-adam", ["staff"])
        assert not (await attempt("wrong")).ok
        with pytest.raises(errors.NotFound):
            await s.hub.get(User, "adam")
        s.directory.problem = errors.Unavailable("it is away")
        assert (await attempt(PASSWORD)).problem == "it is away"
