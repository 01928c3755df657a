"""Identity's methods on a hub in memory, for tests: ada, bob and eve have passwords here, and `Scripted` is their directory."""

from __future__ import annotations

from contextlib import asynccontextmanager

from libs.common.bus.base import Message
from libs.common.contracts import messages as m
from libs.common.crypto.sealed import KeyRing
from libs.common.reconcile import DONE
from libs.common.resources.identity import Token, User
from libs.common.resources.providers import IdentityProvider
from libs.common.resources.requests import AccessPolicy
from services.identity.accounts import Accounts
from services.identity.handlers import Handlers
from services.identity.known_places import KnownPlaces
from services.identity.logins import LastLogins
from services.identity.passwords import Passwords
from services.identity.provider_sessions import ProviderSessions
from services.identity.providers.running import Providers
from services.identity.second_factor import SecondFactors
from services.identity.sign_in import PasswordSignIn
from services.identity.sign_outs import SignOuts
from services.identity.sweeper import TokenSweeper
from services.identity.throttle import Throttle
from services.identity.tokens import Lifetimes, Tokens
from tests.access import made
from tests.access.hub import ADMIN, Hub, running_hub
from tests.identity.recorder import Recorder, attempts_of
from tests.identity.scripted import Scripted

PASSWORD = "correct horse battery"
MESSAGE = Message("svc.identity.v1.test", b"", {})
ADA, BOB, EVE = made.user("ada"), made.user("bob"), made.user("eve")


class Service:
    """Handlers on a hub in memory, with cheap hashing; parameters change the cost of a hash, not what is checked."""

    def __init__(self, hub: Hub, per_user: int = 100) -> None:
        self.hub, store = hub, hub.stores["identity"]
        self.passwords = Passwords(memory_kib=64, passes=1)
        self.tokens = Tokens(store, hub.now, Lifetimes(), per_user)
        self.logins = LastLogins(store, hub.now)
        self.directory = Scripted()
        ring = KeyRing({"k1": bytes(32)})
        self.providers = Providers(hub.objects(IdentityProvider), {"ldap": lambda *_: self.directory}, ring)
        self.trail = Recorder()
        attempts = attempts_of(hub, self.trail, self.tokens.revoke, self.providers.is_known)
        sign_in = PasswordSignIn(store, self.passwords, self.providers, Accounts(store, ring, hub.now), hub.now)
        self.handlers = Handlers(
            store, self.passwords, Throttle(lambda: 0.0), KnownPlaces(hub.informers["users"], hub.now), self.tokens, self.logins, hub.verifier, hub.live,
            self.providers, sign_in, SecondFactors(store, ring, hub.now), hub.now, attempts, hub.objects(AccessPolicy),
        )  # fmt: skip
        self.sessions = ProviderSessions(store, ring, Lifetimes())
        self.sign_outs = SignOuts(store, self.providers, self.sessions, self.tokens, hub.verifier, attempts)
        self.sweeper = TokenSweeper(store, self.tokens.records, hub.objects(User), hub.now, attempts)

    async def login(self, user: str = "ada", password: str = PASSWORD) -> m.IssuedToken:
        return await self.handlers.login(
            m.LoginRequest(user=user, password=password, client_address="192.0.2.1"), MESSAGE
        )

    async def issue(self, who: User, **more) -> m.IssuedToken:
        caller = {k: more.pop(k) for k in ("token", "read_only_caller", "scope", "owes") if k in more}
        envelope = self.hub.envelope(
            who, token=caller.get("token", ""), read_only=caller.get("read_only_caller", False),
            clusters=caller.get("scope", []), owes=caller.get("owes", []),
        )  # fmt: skip
        request = m.TokenIssue(identity=envelope, purpose=more.pop("purpose", "api"), **more)
        return await self.handlers.issue_token(request, MESSAGE)

    async def change(self, who: User, user: str, new: str, current: str = "", **more) -> m.Empty:
        request = m.PasswordChange(
            identity=self.hub.envelope(who, **more), user=user, current_password=current, new_password=new
        )
        return await self.handlers.change_password(request, MESSAGE)

    async def sweep(self) -> set[str]:
        """One look through all records, and what is to tidy tidied. Returns the uids that had something."""
        found: set[str] = set()
        await self.sweeper.look(found.add)
        for uid in found:
            assert await self.sweeper.reconcile(uid) == DONE
        return found

    async def token(self, name: str) -> Token:
        return await self.hub.get(Token, name)


@asynccontextmanager
async def running(clock, *, per_user: int = 100, bindings=()):
    async with running_hub(clock) as hub:
        service = Service(hub, per_user)
        for user in (ADA, BOB, EVE):
            stored = user.model_copy(deep=True)
            stored.private.password_hash = await service.passwords.hash(PASSWORD)
            await hub.put(stored)
        helper = made.role("helper", "global", hub=[made.hub_rule("get update", "users")])
        await hub.put(
            ADMIN, helper, made.role("viewer", "cluster", rules=[made.rule("get", "pods")]), made.cluster("east")
        )
        await hub.put(*bindings)
        try:
            yield service
        finally:
            await service.providers.aclose()
            await service.passwords.aclose()
