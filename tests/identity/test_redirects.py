from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from libs.common import errors
from libs.common.contracts import messages as m
from libs.common.crypto.sealed import KeyRing
from libs.common.resources.identity import Token, User
from libs.common.resources.providers import IdentityProvider
from services.identity.accounts import Accounts
from services.identity.providers.base import Begun, Group, Identity
from services.identity.providers.running import Providers
from services.identity.redirects import LIFETIME_S, Redirects
from tests.identity.scripted import Scripted
from tests.identity.service import ADA, BOB, MESSAGE, running
from tests.identity.test_accounts import provider

RING = KeyRing({"k1": bytes(32)})
BACK = "https://hub.example/v1/callback/{}"


@dataclass
class Page(Scripted):
    """A provider with a page of its own. Not imitated: what happens there."""

    identity: Identity = field(default_factory=lambda: Identity("42", "jane", groups=(Group("g", "ops"),)))
    sign_in = None  # type: ignore[assignment]

    async def begin(self, redirect_uri: str, state: str) -> Begun:
        return Begun(f"https://page.example/?state={state}", {"verifier": "v"})

    async def finish(self, redirect_uri, parameters, secrets) -> Identity:
        assert secrets == {"verifier": "v"}
        return self.identity

    async def end_session_url(self, hint: str, return_to: str, state: str) -> str:
        return ""


class Site:
    def __init__(self, service) -> None:
        self.trail = service.trail
        self.hub, store = service.hub, service.hub.stores["identity"]
        self.page = Page()
        self.providers = Providers(self.hub.objects(IdentityProvider), {"ldap": lambda *_: self.page}, RING)
        accounts = Accounts(store, RING, self.hub.now)
        self.redirects = Redirects(
            store, RING, self.providers, accounts, service.handlers, self.hub.verifier, self.hub.now, service.sessions
        )

    async def begin(self, name: str = "corp", **more) -> tuple[m.RedirectBegun, str]:
        begun = await self.redirects.begin(
            m.RedirectBegin(provider=name, redirect_uri=BACK.format(name), session=True, **more), MESSAGE
        )
        return begun, begun.url.partition("state=")[2]

    async def finish(self, begun, state: str, name: str = "corp", **more) -> m.RedirectFinished:
        request = m.RedirectFinish(
            provider=name,
            redirect_uri=BACK.format(name),
            parameters={"code": "c", "state": state},
            pending=begun.pending,
            **more,
        )
        return await self.redirects.finish(request, MESSAGE)


@asynccontextmanager
async def site_of(clock):
    async with running(clock) as service:
        await service.hub.put(provider(), provider("other"))
        site = Site(service)
        try:
            yield site
        finally:
            await site.providers.aclose()


async def test_who_comes_back_with_what_was_begun_in_this_browser_is_signed_in(clock):
    async with site_of(clock) as site:
        begun, state = await site.begin(return_to="/ui/x")
        finished = await site.finish(begun, state, client_address="192.0.2.9")
        assert (finished.return_to, finished.session, finished.issued.user) == ("/ui/x", True, "jane")
        token = await site.hub.get(Token, finished.issued.name)
        assert (token.spec.purpose, token.spec.provider, token.spec.client_address) == ("session", "corp", "192.0.2.9")
        assert state not in begun.pending
        (event,) = site.trail.events
        assert (event.action, event.outcome, event.provider, event.actor) == ("sign-in", "success", "corp", "jane")
        assert (event.address, event.token) == ("192.0.2.9", finished.issued.name)


async def test_an_answer_counts_once(clock):
    async with site_of(clock) as site:
        begun, state = await site.begin()
        await site.finish(begun, state)
        with pytest.raises(errors.Unauthenticated, match="begin again"):
            await site.finish(begun, state)
        assert site.trail.told[-1] == ("sign-in", "failure", "replayed", "")


@pytest.mark.parametrize(
    "wrong", ["state", "no state", "cookie", "no cookie", "cookie of another sign-in", "provider", "late"]
)
async def test_what_was_not_begun_here_is_refused(clock, wrong):
    async with site_of(clock) as site:
        begun, state = await site.begin()
        name = "corp"
        match wrong:
            case "state":
                state = "forged"
            case "no state":
                state = ""
            case "cookie":
                begun = begun.model_copy(update={"pending": begun.pending[:-4] + "AAAA"})
            case "no cookie":
                begun = begun.model_copy(update={"pending": ""})
            case "cookie of another sign-in":
                begun, _ = await site.begin()
            case "provider":
                name = "other"
            case "late":
                clock.forward(LIFETIME_S + 1)
        with pytest.raises(errors.Unauthenticated, match="begin again"):
            await site.finish(begun, state, name)


@pytest.mark.parametrize(
    "path", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "javascript:alert(1)", "/a\nb"]
)
async def test_nobody_is_led_away_from_the_hub(clock, path):
    async with site_of(clock) as site:
        with pytest.raises(errors.BadRequest, match="return_to"):
            await site.begin(return_to=path)


async def test_an_account_is_linked_by_its_signed_in_person_alone(clock):
    async with site_of(clock) as site:
        begun, state = await site.begin(identity=site.hub.envelope(ADA))
        finished = await site.finish(begun, state, identity=site.hub.envelope(ADA))
        assert (finished.issued, finished.linked) == (None, "corp:user:42")
        assert site.trail.told == [("link-account", "success", "", "ada")]
        assert (site.trail.events[0].actor, site.trail.events[0].note) == ("ada", "corp:user:42")
        assert (await site.hub.get(User, "ada")).status.identities[0].principal_id == "corp:user:42"
        begun, state = await site.begin(identity=site.hub.envelope(ADA))
        with pytest.raises(errors.Denied, match="another person"):
            await site.finish(begun, state, identity=site.hub.envelope(BOB))


async def test_a_token_for_scripts_links_nothing(clock):
    async with running(clock) as service:
        await service.hub.put(provider())
        site, signed_in = Site(service), (await service.login()).name
        script = (await service.issue(ADA, token=signed_in)).name
        with pytest.raises(errors.Denied, match="sign in"):
            await site.begin(identity=site.hub.envelope(ADA, token=script))
        begun, state = await site.begin(identity=site.hub.envelope(ADA, token=signed_in))
        with pytest.raises(errors.Denied, match="sign in"):
            await site.finish(begun, state, identity=site.hub.envelope(ADA, token=script))
        begun, state = await site.begin(identity=site.hub.envelope(ADA, token=signed_in))
        await site.finish(begun, state, identity=site.hub.envelope(ADA, token=signed_in))
        assert (await site.hub.get(User, "ada")).status.identities[0].principal_id == "corp:user:42"


@pytest.mark.parametrize("limit", [{"read_only": True}, {"clusters": ["east"]}])
async def test_a_restricted_token_links_nothing(clock, limit):
    async with site_of(clock) as site:
        with pytest.raises(errors.Denied, match="unrestricted"):
            await site.begin(identity=site.hub.envelope(ADA, **limit))
