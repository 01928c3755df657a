"""A hub in memory whose provider `sso` is the real code for OpenID Connect, at an issuer on loopback with real keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.common.contracts import messages as m
from libs.common.crypto.sealed import KeyRing
from libs.common.resources.identity import Token, User
from libs.common.resources.meta import ObjectMeta
from libs.common.resources.providers import IdentityProvider, IdentityProviderSpec
from services.identity.accounts import Accounts
from services.identity.back_channel import BackChannel
from services.identity.device_logins import DeviceLogins
from services.identity.providers.factories import FACTORIES
from services.identity.providers.oidc import OidcProvider
from services.identity.providers.running import Providers
from services.identity.redirects import Redirects
from services.identity.sign_outs import SignOuts
from services.identity.throttle import Throttle
from tests.identity.oidc.issuer import CLIENT, Liar, lying
from tests.identity.recorder import Recorder, attempts_of
from tests.identity.service import MESSAGE, Service, running

RING = KeyRing({"k1": bytes(32)})
PAGE = "https://hub.example/ui/"


def oidc(liar: Liar, name: str = "sso", **settings: object) -> IdentityProvider:
    given = {"issuer": liar.url, "clientId": CLIENT, "timeoutSeconds": 2, **settings}
    spec = {"type": "oidc", "enabled": True, "displayName": "Single sign-on", "oidc": given}
    return IdentityProvider(
        metadata=ObjectMeta(name=name, uid=f"uid-{name}", generation=1), spec=IdentityProviderSpec.model_validate(spec)
    )


class Site:
    """`service` brings the users ada, bob and eve, who have passwords here."""

    def __init__(self, service: Service, liar: Liar) -> None:
        self.service, self.hub, self.liar, self.tokens = service, service.hub, liar, service.tokens
        store, now = self.hub.stores["identity"], self.hub.now
        factories = {**FACTORIES, "oidc": lambda resource, settings: OidcProvider(resource.name, settings, now)}
        self.providers = Providers(self.hub.objects(IdentityProvider), factories, RING)
        self.accounts = Accounts(store, RING, now)
        self.trail = Recorder()
        sessions, attempts = service.sessions, attempts_of(self.hub, self.trail)
        self.back_channel = BackChannel(store, self.providers, self.accounts, sessions, self.tokens, attempts, now)
        self.sign_outs = SignOuts(store, self.providers, sessions, self.tokens, self.hub.verifier, attempts)
        self.devices = DeviceLogins(store, service.handlers, self.hub.verifier, Throttle(lambda: 0.0), now)
        self.redirects = Redirects(
            store, RING, self.providers, self.accounts, service.handlers, self.hub.verifier, now, sessions
        )

    async def sign_in(self, provider: str = "sso", **claims: object) -> m.IssuedToken:
        """A browser's session; `claims` go into the ID token."""
        back = f"https://hub.example/v1/callback/{provider}"
        begun = await self.redirects.begin(m.RedirectBegin(provider=provider, redirect_uri=back, session=True), MESSAGE)
        query = dict(part.split("=", 1) for part in begun.url.partition("?")[2].split("&"))
        self.liar.nonce, self.liar.change = query["nonce"], claims
        request = m.RedirectFinish(
            provider=provider, redirect_uri=back, parameters={"code": "c", "state": query["state"]}, pending=begun.pending,
        )  # fmt: skip
        finished = await self.redirects.finish(request, MESSAGE)
        await self.hub.settle()
        assert finished.issued is not None
        return finished.issued

    async def told(self, token: str, provider: str = "sso") -> str:
        """The error that the provider hears; empty for 200."""
        done = await self.back_channel.logout(m.BackChannelLogout(provider=provider, logout_token=token), MESSAGE)
        await self.hub.settle()
        assert bool(done.description) is bool(done.error)
        return done.error

    async def envelope(self, issued: m.IssuedToken) -> str:
        token = await self.hub.get(Token, issued.name)
        return self.hub.envelope(await self.hub.get(User, token.spec.user), token=issued.name)

    async def left(self) -> set[str]:
        """Names of the tokens that are there."""
        store = self.hub.stores["identity"]
        return {entry.key.partition(".")[2] async for entry in store.scan("tokens") if not entry.deleted}


@asynccontextmanager
async def site_of(clock, **settings: object) -> AsyncIterator[Site]:
    async with lying(clock()) as liar, running(clock) as service:
        await service.hub.put(oidc(liar, **settings), oidc(liar, "other", clientId="another-client"))
        site = Site(service, liar)
        try:
            yield site
        finally:
            await site.providers.aclose()
