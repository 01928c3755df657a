"""Exchanges on a hub in memory, with a lying issuer on loopback that has real keys, and a clock that the test moves."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

from libs.common.access.federation import origin_of
from libs.common.bus.base import Message
from libs.common.contracts.messages import TokenExchange, TokenExchanged
from libs.common.resources.federation import FederatedCredential
from libs.common.resources.identity import Token
from libs.common.resources.requests import AccessPolicy
from services.identity.federation.ends import FederationEnds
from services.identity.federation.exchange import Exchanges
from services.identity.federation.sources import Sources
from services.identity.federation.strategy import FederatedCredentialStrategy
from services.identity.tokens import Lifetimes, Tokens
from tests.access import made
from tests.access.hub import ADMIN, Hub, running_hub
from tests.identity.oidc.issuer import Liar, lying
from tests.identity.recorder import Recorder, attempts_of

MESSAGE = Message("svc.identity.v1.exchange_token", b"", {})
AUDIENCE = "https://hub.example"
SUBJECT = "repo:acme/shop:ref:refs/heads/main"
ADA, BOB, EVE = made.user("ada"), made.user("bob"), made.user("eve")
HELPER = made.role(
    "helper", "global",
    hub=[made.hub_rule("get update", "users"), made.hub_rule("create update patch delete get", "federatedcredentials")],
)  # fmt: skip


def bot(name: str = "bot", uid: str = ""):
    user = made.user(name, uid)
    user.spec.service = True
    return user


class Site:
    def __init__(self, hub: Hub, liar: Liar, per_user: int, most_federated: int) -> None:
        self.hub, self.liar = hub, liar
        store = hub.stores["identity"]
        self.seconds = 0.0
        self.known = hub.objects(FederatedCredential)
        self.sources = Sources(hub.now, lambda: self.seconds, timeout_s=1.0)
        self.tokens = Tokens(store, hub.now, Lifetimes(), per_user, most_federated)
        self.trail = Recorder()
        attempts = attempts_of(hub, self.trail)
        self.exchanges = Exchanges(store, self.known, self.sources, self.tokens, hub.now, attempts)
        self.ends = FederationEnds(self.known, self.tokens, self.sources, attempts)
        self.writer = hub.writer(
            "identity",
            {
                "federatedcredentials": FederatedCredentialStrategy(
                    store, self.sources, hub.live.bindings, hub.objects(AccessPolicy)
                )
            },
        )
        liar.metadata = {"authorization_endpoint": None, "token_endpoint": None}
        liar.change = {"aud": AUDIENCE, "sub": SUBJECT, "nonce": None, "jti": "one"}

    def credential(self, name: str = "shop", **spec: Any) -> FederatedCredential:
        user = spec.get("user", "bot")
        wanted = {
            "user": user, "userUid": f"uid-{user}", "issuer": self.liar.url, "audiences": [AUDIENCE], "subject": SUBJECT, **spec,
        }  # fmt: skip
        return FederatedCredential.model_validate({"metadata": made.meta(name), "spec": wanted})

    async def exchange(self, token: str | None = None, resource: str = "") -> TokenExchanged:
        request = TokenExchange(
            subject_token=self.liar.id_token() if token is None else token,
            resource=resource,
            client_address="192.0.2.1",
        )
        return await self.exchanges.exchange(request, MESSAGE)

    async def token(self, exchanged: TokenExchanged) -> Token:
        assert exchanged.issued is not None, exchanged
        return await self.hub.get(Token, exchanged.issued.name)

    async def end(self, credential: FederatedCredential) -> None:
        await self.ends.reconcile(f"{origin_of(credential)} {credential.spec.user_uid}")


@asynccontextmanager
async def running(clock, *, per_user: int = 100, most_federated: int = 1000):
    async with lying(clock()) as liar, running_hub(clock) as hub:
        site = Site(hub, liar, per_user, most_federated)
        await hub.put(ADA, BOB, EVE, bot(), ADMIN, HELPER, made.binding(BOB, "helper", everywhere=True))
        try:
            yield site
        finally:
            await site.sources.aclose()
