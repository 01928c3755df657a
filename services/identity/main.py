"""The wiring of identity."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

from libs.common.access.live import start_live_grants
from libs.common.apiserver.strategy import Strategy
from libs.common.apiserver.writer import ResourceWriter
from libs.common.contracts import subjects
from libs.common.contracts.messages import SignInCounts
from libs.common.contracts.methods import (
    ANSWER_DEVICE,
    BACK_CHANNEL_LOGOUT,
    BEGIN_DEVICE,
    BEGIN_REDIRECT,
    BEGIN_SECOND_FACTOR,
    CHANGE_PASSWORD,
    CONFIRM_SECOND_FACTOR,
    EXCHANGE_TOKEN,
    EXTEND_SESSION,
    FETCH_DEVICE,
    FINISH_REDIRECT,
    ISSUE_TOKEN,
    LOGIN,
    NOTE_TOKEN_USE,
    REMOVE_SECOND_FACTOR,
    REVOKE_TOKEN,
    SCIM,
    SEARCH_PRINCIPALS,
    SIGN_IN_OPTIONS,
    TEST_PROVIDER,
    WRITE,
)
from libs.common.crypto.sealed import KeyRing
from libs.common.reconcile import Reconciler, follow
from libs.common.resources.federation import FederatedCredential
from libs.common.resources.identity import Group, User
from libs.common.resources.providers import IdentityProvider
from libs.common.resources.requests import AccessPolicy
from libs.common.runtime.config import ConfigError
from libs.common.runtime.host import Host
from libs.common.store.lease import Lease
from libs.common.store.objects import Objects
from services.identity.accounts import Accounts
from services.identity.activity import LastActivities
from services.identity.audit.attempts import Attempts
from services.identity.audit.names import AccountNames
from services.identity.audit.trail import Trail
from services.identity.back_channel import BackChannel
from services.identity.bootstrap import bootstrap_admin, ensure_local_provider
from services.identity.config import IdentityConfig
from services.identity.device_logins import DeviceLogins
from services.identity.federation.ends import FederationEnds, keys_of_credential
from services.identity.federation.exchange import Exchanges
from services.identity.federation.sources import Sources
from services.identity.federation.strategy import FederatedCredentialStrategy
from services.identity.group_members import GroupMembers, keys_of_member
from services.identity.group_strategy import GroupStrategy
from services.identity.handlers import Handlers
from services.identity.inactive import KEY as INACTIVE_USERS
from services.identity.inactive import InactiveUsers, keys_of_policy
from services.identity.inactive_rules import grain_of
from services.identity.known_places import KnownPlaces
from services.identity.logins import LastLogins
from services.identity.passwords import Passwords
from services.identity.provider_ends import ProviderEnds, keys_of_provider
from services.identity.provider_handlers import ProviderHandlers
from services.identity.provider_health import ProviderHealth
from services.identity.provider_health import keys_of_provider as keys_of_health
from services.identity.provider_sessions import ProviderSessions
from services.identity.provider_strategy import IdentityProviderStrategy
from services.identity.providers.factories import FACTORIES
from services.identity.providers.running import Providers
from services.identity.redirects import Redirects
from services.identity.refresher import Refresher
from services.identity.refresher import keys_of_user as refreshed_user
from services.identity.scim.directory import GROUPS, Directory
from services.identity.scim.groups import Groups as PushedGroups
from services.identity.scim.service import Scim
from services.identity.scim.users import Users as PushedUsers
from services.identity.second_factor import SecondFactors
from services.identity.second_factor_handlers import SecondFactorHandlers
from services.identity.sign_in import PasswordSignIn
from services.identity.sign_outs import SignOuts
from services.identity.strategies import TokenStrategy, UserStrategy
from services.identity.sweeper import TokenSweeper, keys_of_user
from services.identity.throttle_peers import ThrottlePeers
from services.identity.token_use import LastUses
from services.identity.tokens import Tokens

LEASE = "leases.upkeep"
LEASE_S = 30
"""Of many replicas one looks at providers and disables users who are inactive; another takes over so soon after a crash."""


async def build(host: Host[IdentityConfig]) -> None:
    config = host.config
    store = host.store("identity")
    grants = await start_live_grants(host)
    users = await host.informer("identity", "users")
    local_groups = await host.informer("identity", "groups")
    configured = await host.informer("identity", "identityproviders")
    credentials_seen = await host.informer("identity", "federatedcredentials")
    policies = Objects(await host.informer("authz", "accesspolicies"), AccessPolicy)
    pushed_groups = await host.informer("identity", GROUPS)
    ring = load_ring(config.secrets_keys)
    await host.synced()

    trail = Trail(host.bus, store, host.now, host.monotonic)
    host.on_stop(trail.close)
    host.spawn("audit trail", trail.run())
    host.spawn("audit counts", trail.tell_counts())

    peers = ThrottlePeers(host.bus, host.monotonic)
    host.spawn("sign-in counts", peers.run())

    passwords = Passwords()
    host.on_stop(passwords.aclose)
    tokens = Tokens(store, host.now, config.lifetimes, config.tokens_per_user)
    providers = Providers(Objects(configured, IdentityProvider), FACTORIES, ring)
    host.on_stop(providers.aclose)
    attempts = Attempts(trail, AccountNames(users), providers.is_known, tokens.revoke, host.now)
    logins = LastLogins(store, host.now)
    host.on_stop(logins.flush)
    host.spawn("last logins", logins.run())

    if config.bootstrap_admin is not None:
        await bootstrap_admin(
            store, passwords, config.bootstrap_admin.user, config.bootstrap_admin.password_file,
            must_change=config.bootstrap_admin.must_change, any_user=bool(users.entries), now=host.now,
        )  # fmt: skip

    host.spawn("token adoption", tokens.adoption.run())
    sweeper = TokenSweeper(store, tokens.records, Objects(users, User), host.now, attempts)
    sweeping = Reconciler("tokens", sweeper.reconcile)
    follow(users, sweeping, keys_of_user)
    host.spawn("token sweeper", sweeping.run())
    host.spawn("token records", sweeper.run(sweeping.add))

    groups = Objects(local_groups, Group)
    tidying = Reconciler("groups", GroupMembers(store, groups, Objects(users, User), host.now).reconcile, workers=1)
    follow(users, tidying, keys_of_member(groups))
    host.spawn("group members", tidying.run())

    await ensure_local_provider(store, host.now)
    accounts = Accounts(store, ring, host.now)
    factors = SecondFactors(store, ring, host.now)
    password_sign_in = PasswordSignIn(store, passwords, providers, accounts, host.now)

    refresher = Reconciler(
        "accounts",
        Refresher(Objects(users, User), providers, accounts, tokens, ring, host.now, attempts).reconcile,
        workers=8,
        timeout_s=180,
    )
    follow(users, refresher, refreshed_user)
    tokens.on_issued.append(lambda user: refresher.add(user.name))
    host.spawn("account refresher", refresher.run())
    enders = Reconciler("provider ends", ProviderEnds(providers, tokens, attempts).reconcile, workers=1, timeout_s=600)
    follow(configured, enders, keys_of_provider)
    host.spawn("provider ends", enders.run())

    lease = Lease(store, LEASE, uuid4().hex, ttl_s=LEASE_S)
    health = ProviderHealth(store, providers, host.now, lease.is_held)
    looking = Reconciler("provider health", health.reconcile)
    follow(configured, looking, keys_of_health)
    providers.on_used.append(lambda name, answered: looking.add(name) if health.notice(name, answered) else None)
    host.spawn("provider health", looking.run())

    activities = LastActivities(store, Objects(users, User), host.now, lambda: grain_of(providers.local_settings()))
    uses = LastUses(store, host.now, activities.note)

    async def flush_uses() -> None:
        await uses.flush()
        await activities.flush()

    inactive = InactiveUsers(
        store, Objects(users, User), providers, tokens.records, grants, attempts, host.now, lease.is_held,
        (logins.flush, flush_uses), activities.seen,
    )  # fmt: skip
    disabling = Reconciler("inactive users", inactive.reconcile, workers=1, timeout_s=600)
    follow(configured, disabling, keys_of_policy)
    host.spawn("inactive users", disabling.run())

    async def lead() -> None:
        """What one replica does: begin with everything, because what is known of it may be another's."""
        inactive.begin()
        disabling.add(INACTIVE_USERS)
        for provider in providers.all():
            looking.add(provider.name)
        await asyncio.Event().wait()

    host.spawn("upkeep", lease.run(lead))

    credentials, sources = Objects(credentials_seen, FederatedCredential), Sources(host.now, host.monotonic)
    host.on_stop(sources.aclose)
    federation_ends = Reconciler("federation ends", FederationEnds(credentials, tokens, sources, attempts).reconcile)
    follow(credentials_seen, federation_ends, keys_of_credential)
    host.spawn("federation ends", federation_ends.run())

    strategies: dict[str, Strategy[Any]] = {
        "users": UserStrategy(grants, attempts), "groups": GroupStrategy(store, grants.bindings, policies), "tokens": TokenStrategy(tokens, attempts),
        "identityproviders": IdentityProviderStrategy(providers, ring, attempts, inactive.preview),
        "federatedcredentials": FederatedCredentialStrategy(store, sources, grants.bindings, policies),
    }  # fmt: skip
    writer = ResourceWriter(store, strategies, host.verifier, grants, host.now)
    handlers = Handlers(
        store,
        passwords,
        peers.throttle("sign-in"),
        KnownPlaces(users, host.now),
        tokens,
        logins,
        host.verifier,
        grants,
        providers,
        password_sign_in,
        factors,
        host.now,
        attempts,
        policies,
    )
    await host.listen(subjects.sign_in_counts(), SignInCounts, peers.hear)
    await host.serve(WRITE["identity"], writer.handle)
    await host.serve(LOGIN, handlers.login)
    await host.serve(SIGN_IN_OPTIONS, handlers.sign_in_options)
    second_factor = SecondFactorHandlers(handlers, factors)
    await host.serve(BEGIN_SECOND_FACTOR, second_factor.begin)
    await host.serve(CONFIRM_SECOND_FACTOR, second_factor.confirm)
    await host.serve(REMOVE_SECOND_FACTOR, second_factor.remove)
    devices = DeviceLogins(store, handlers, host.verifier, peers.throttle("devices"), host.now)
    await host.serve(BEGIN_DEVICE, devices.begin)
    await host.serve(ANSWER_DEVICE, devices.look)
    await host.serve(FETCH_DEVICE, devices.fetch)
    sessions = ProviderSessions(store, ring, config.lifetimes)
    redirects = Redirects(store, ring, providers, accounts, handlers, host.verifier, host.now, sessions)
    await host.serve(BEGIN_REDIRECT, redirects.begin)
    await host.serve(FINISH_REDIRECT, redirects.finish)
    about_providers = ProviderHandlers(
        providers, Objects(users, User), groups, host.verifier, grants, peers.throttle("provider-tests")
    )
    await host.serve(SEARCH_PRINCIPALS, about_providers.search)
    await host.serve(TEST_PROVIDER, about_providers.test)
    pushed = Directory(users, pushed_groups)
    pushed_users = PushedUsers(store, accounts, tokens, Objects(users, User), pushed, host.now, attempts)
    scim = Scim(
        store, providers, host.verifier, grants, pushed_users, PushedGroups(store, pushed_users, pushed, host.now)
    )
    await host.serve(SCIM, scim.call)
    await host.serve(ISSUE_TOKEN, handlers.issue_token)
    await host.serve(EXCHANGE_TOKEN, Exchanges(store, credentials, sources, tokens, host.now, attempts).exchange)
    await host.serve(REVOKE_TOKEN, SignOuts(store, providers, sessions, tokens, host.verifier, attempts).revoke)
    back_channel = BackChannel(store, providers, accounts, sessions, tokens, attempts, host.now)
    await host.serve(BACK_CHANNEL_LOGOUT, back_channel.logout)
    host.on_stop(flush_uses)
    host.spawn("last uses", uses.run())
    host.spawn("last activities", activities.run())
    await host.serve(NOTE_TOKEN_USE, uses.note)
    await host.serve(EXTEND_SESSION, handlers.extend_session)
    await host.serve(CHANGE_PASSWORD, handlers.change_password)


def load_ring(file: Path) -> KeyRing:
    """The keys that open stored secrets. Raises ConfigError."""
    try:
        return KeyRing.load(file)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc
