from __future__ import annotations

import time
from contextlib import asynccontextmanager

import pytest

from libs.common import errors
from libs.common.resources.providers import GitHubSettings
from services.identity.providers.base import Gone
from services.identity.providers.github import PAGE, GitHubProvider
from tests.identity.conformance import *  # noqa: F403 - the suite
from tests.identity.conformance import Site
from tests.identity.github.server import CLIENT, SECRET, GitHub, Person, serving

BACK = "https://hub.example/v1/callback/github"


@asynccontextmanager
async def running(**settings):
    async with serving() as github:
        made = {"url": github.url, "client_id": CLIENT, "client_secret": SECRET, "timeout_seconds": 2, **settings}
        provider = GitHubProvider("github", GitHubSettings.model_validate(made))
        org = {"id": 7, "login": "acme"}
        team = {"id": 9, "slug": "ops", "organization": {"id": 7, "login": "acme"}}
        github.people = {"jane": Person(42, "jane", [org], [team]), "janet": Person(43, "janet")}
        try:
            yield github, provider
        finally:
            await provider.aclose()


async def sign_in(github: GitHub, provider: GitHubProvider, login: str = "jane"):
    begun = await provider.begin(BACK, "state")
    return await provider.finish(BACK, github.agree(begun.url, login), begun.secrets)


@pytest.fixture
async def site():
    async with running() as (github, provider):

        async def break_it() -> None:
            github.limit = (502, {})

            await provider._web.aclose()
            provider._api = "http://127.0.0.1:1"

        yield Site(provider, "jane", "", lambda user, _password: sign_in(github, provider, user), break_it)


async def test_people_organisations_and_teams_are_named_by_their_numbers():
    async with running() as (github, provider):
        identity = await sign_in(github, provider)
        assert (identity.id, identity.user_name) == ("42", "jane")
        assert {(g.id, g.name) for g in identity.groups} == {("org:7", "acme"), ("team:9", "acme/ops")}
        github.people["renamed"] = github.people.pop("jane")
        github.people["renamed"].login = "renamed"
        github.tokens[identity.refresh_secret] = "renamed"
        assert (await provider.refresh("42", identity.refresh_secret)).user_name == "renamed"


async def test_every_page_is_read_and_too_many_are_told(monkeypatch):
    async with running() as (github, provider):
        github.people["jane"].orgs = [{"id": n, "login": f"org-{n}"} for n in range(1, 2 * PAGE + 6)]
        identity = await sign_in(github, provider)
        assert len([g for g in identity.groups if g.id.startswith("org:")]) == 2 * PAGE + 5
        assert identity.truncated == ""
        monkeypatch.setattr("services.identity.providers.github.MAX_PAGES", 2)
        assert "more than 200" in (await sign_in(github, provider)).truncated


async def test_a_page_that_leads_elsewhere_is_not_followed():
    async with running() as (github, provider):
        github.people["jane"].orgs = [{"id": n, "login": f"org-{n}"} for n in range(1, PAGE + 6)]
        github.next_page = "https://evil.example/user/orgs?page=2"
        with pytest.raises(errors.Unavailable, match="somewhere else"):
            await sign_in(github, provider)


@pytest.mark.parametrize(("allowed", "enters"), [(["ACME"], True), (["acme", "other"], True), (["other"], False)])
async def test_only_members_of_allowed_organisations_come_in(allowed, enters):
    async with running(organizations=allowed) as (github, provider):
        if enters:
            assert await sign_in(github, provider)
        else:
            with pytest.raises(errors.Denied, match="none of the organisations"):
                await sign_in(github, provider)


@pytest.mark.parametrize(
    ("status", "headers", "wait_s"),
    [
        (429, {"Retry-After": "17"}, 17),
        (403, {"Retry-After": "30"}, 30),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "120"}, 120),
        (429, {}, 60),
        (429, {"Retry-After": "999999"}, 3600),
        (429, {"Retry-After": "soon"}, 60),
    ],
)
async def test_rate_limits_are_respected_and_end_nobodys_access(status, headers, wait_s):
    async with running() as (github, provider):
        identity = await sign_in(github, provider)
        if "X-RateLimit-Reset" in headers:
            # Seconds from now as it is when it is answered.
            headers = {**headers, "X-RateLimit-Reset": str(int(time.time()) + int(headers["X-RateLimit-Reset"]))}
        github.limit = (status, headers)
        with pytest.raises(errors.Unavailable, match="asked too much") as caught:
            await provider.refresh(identity.id, identity.refresh_secret)
        assert abs(caught.value.retry_after_s - wait_s) <= 10


async def test_who_took_the_apps_access_away_is_gone_and_an_outage_ends_nobody():
    async with running() as (github, provider):
        identity = await sign_in(github, provider)
        with pytest.raises(Gone):
            await provider.refresh("43", identity.refresh_secret)
        for status in (500, 502, 403):
            github.limit = (status, {})
            with pytest.raises(errors.Unavailable):
                await provider.refresh(identity.id, identity.refresh_secret)
        github.limit = None
        github.tokens.clear()
        with pytest.raises(Gone):
            await provider.refresh(identity.id, identity.refresh_secret)


async def test_codes_of_others_and_used_ones_are_refused():
    async with running() as (github, provider):
        mine, theirs = await provider.begin(BACK, "a"), await provider.begin(BACK, "b")
        answer = github.agree(theirs.url, "jane")
        with pytest.raises(errors.Unauthenticated):
            await provider.finish(BACK, answer, mine.secrets)
        answer = github.agree(mine.url, "jane")
        await provider.finish(BACK, answer, mine.secrets)
        with pytest.raises(errors.Unauthenticated):
            await provider.finish(BACK, answer, mine.secrets)
        with pytest.raises(errors.Denied):
            await provider.finish(BACK, {"error": "access_denied"}, mine.secrets)


async def test_the_test_tells_a_wrong_secret():
    async with running(client_secret="wrong") as (_github, provider):
        with pytest.raises(errors.Invalid, match="clientSecret"):
            await provider.test()
