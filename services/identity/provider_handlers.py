"""The methods around providers: try one out, and find users and groups to grant to. `main` serves them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from libs.common import errors
from libs.common.access.live import HasGrants
from libs.common.access.principal import Principal, local_group_principal, local_user_principal, principal_of
from libs.common.bus.base import Message
from libs.common.contracts import messages as m
from libs.common.crypto.envelope import Verifier
from libs.common.observe import log
from libs.common.resources.identity import Group, User
from libs.common.resources.meta import check_label
from libs.common.resources.providers import LOCAL, IdentityProvider
from libs.common.store.objects import Objects
from services.identity.accounts import make_snapshot
from services.identity.providers.base import Identity, PasswordProvider
from services.identity.providers.running import Providers
from services.identity.throttle import Throttle

SEARCH_DEADLINE_S = 8.0
TEST_DEADLINE_S = 20.0
_SHOWN_GROUPS = 200


@dataclass(slots=True)
class ProviderHandlers:
    """Each: who calls → may they → ask the providers → answer."""

    providers: Providers
    users: Objects[User]
    groups: Objects[Group]
    verifier: Verifier
    grants: HasGrants
    throttle: Throttle

    async def search(self, request: m.PrincipalSearch, _message: Message) -> m.FoundPrincipals:
        """For whoever may give roles to somebody. Providers that do not answer in time are named, never silently left out."""
        principal = self.verifier.open(request.identity)
        grants = self.grants.current
        if not (
            grants.reaches(principal, "create", "roletemplatebindings") or grants.is_allowed(principal, "list", "users")
        ):
            raise errors.Denied("cannot search users and groups: the right to give roles is missing")
        if request.provider:
            _check_name(request.provider)
        wanted = [
            p for p in self.providers.all() if p.spec.enabled and not p.deleting and request.provider in ("", p.name)
        ]  # fmt: skip
        if request.provider and not wanted:
            raise errors.not_found("identityproviders.management.herdsman.dev", request.provider)
        answers = await asyncio.gather(*(self._search_one(p, request) for p in wanted))
        found = [item for items, _ in answers for item in items]
        notices = [notice for _, notices in answers for notice in notices]
        if len(found) > request.limit:
            notices.append(f"there are more than {request.limit}: give more of the name")
        return m.FoundPrincipals(principals=found[: request.limit], notices=notices)

    async def test(self, request: m.ProviderTest, message: Message) -> m.ProviderTested:
        """For whoever may change the provider. With a name and password it shows what a sign-in would see, and lets nobody in."""
        principal = self.verifier.open(request.identity)
        _check_name(request.provider)
        if not self.grants.current.is_allowed(principal, "update", "identityproviders", request.provider):
            raise errors.Denied(f'cannot test the provider "{request.provider}": the right to update it is missing')
        resource = self.providers.resource(request.provider)
        if resource is None:
            raise errors.not_found("identityproviders.management.herdsman.dev", request.provider)
        began = time.monotonic()
        try:
            async with asyncio.timeout(TEST_DEADLINE_S):
                tested = await self._test(resource, principal, request)
        except TimeoutError:
            tested = m.ProviderTested(ok=False, problem=f"the provider did not answer within {TEST_DEADLINE_S:.0f} s")
        except errors.HerdsmanError as exc:
            tested = m.ProviderTested(ok=False, problem=exc.message)
        return tested.model_copy(update={"took_ms": round(1000 * (time.monotonic() - began))})

    async def _test(self, resource: IdentityProvider, caller: Principal, request: m.ProviderTest) -> m.ProviderTested:
        if resource.name == LOCAL:
            return m.ProviderTested(ok=True, notices=["the hub's own accounts need no test"])
        async with self.providers.use(resource.name, enabled=False) as provider:
            await provider.test()
            if not request.user:
                return m.ProviderTested(ok=True)
            if not isinstance(provider, PasswordProvider):
                raise errors.BadRequest("people sign in on this provider's own page: try it there")
            # Guesses are as slow here as at the door.
            account, address = f"{resource.name}/{request.user}", f"test by {caller.user}"
            with self.throttle.guess(account, address):
                identity = await provider.sign_in(request.user, request.password)
        return _shown(resource, identity)

    async def _search_one(
        self, provider: IdentityProvider, request: m.PrincipalSearch
    ) -> tuple[list[m.FoundPrincipal], list[str]]:
        name = provider.spec.display_name or provider.name
        if provider.name == LOCAL:
            return self._search_local(request), []
        kind = request.kind or None
        try:
            async with asyncio.timeout(SEARCH_DEADLINE_S), self.providers.use(provider.name) as running:
                result = await running.search(request.text, kind, request.limit)
        except TimeoutError:
            return [], [
                f'"{name}" did not answer within {SEARCH_DEADLINE_S:.0f} s: its users and groups are missing here'
            ]
        except errors.HerdsmanError as exc:
            log.get("identity").warning("principal_search_failed", provider=provider.name, error=exc.message)
            return [], [f'"{name}" could not be searched: {exc.message}']
        found = [
            m.FoundPrincipal(
                principal_id=principal_of(provider.name, item.kind, item.id), provider=provider.name, kind=item.kind,
                name=item.name, display_name=item.display_name, email=item.email,
            )
            for item in result.found
        ]  # fmt: skip
        return found, [f'"{name}" has more than {request.limit}: give more of the name'] if result.more else []

    def _search_local(self, request: m.PrincipalSearch) -> list[m.FoundPrincipal]:
        text = request.text.casefold()
        groups = [] if request.kind == "user" else [
            m.FoundPrincipal(
                principal_id=group.status.principal_id or local_group_principal(group.uid), provider=LOCAL, kind="group", name=group.name,
                display_name=group.spec.display_name,
            )
            for group in sorted(self.groups.all(), key=lambda group: group.name)
            if text in group.name or text in group.spec.display_name.casefold()
        ][: request.limit + 1]  # fmt: skip
        if request.kind == "group":
            return groups
        matching = [
            user for user in self.users.all()
            if not user.status.identities and (text in user.name or text in user.spec.display_name.casefold())
        ]  # fmt: skip
        return groups + [
            m.FoundPrincipal(
                principal_id=user.status.principal_id or local_user_principal(user.uid), provider=LOCAL, kind="user", name=user.name,
                display_name=user.spec.display_name,
            )
            for user in sorted(matching, key=lambda user: user.name)[: request.limit + 1]
        ]  # fmt: skip


def _shown(resource: IdentityProvider, identity: Identity) -> m.ProviderTested:
    snapshot = make_snapshot(resource, identity, datetime.now(UTC))
    notices = [snapshot.truncated] if snapshot.truncated else []
    names = sorted(group.name for group in identity.groups)
    if len(names) > _SHOWN_GROUPS:
        notices.append(f"the first {_SHOWN_GROUPS} of {len(names)} groups are shown")
    return m.ProviderTested(
        ok=True,
        principal_id=snapshot.principal_id,
        user_name=identity.user_name,
        groups=names[:_SHOWN_GROUPS],
        notices=notices,
    )


def _check_name(name: str) -> None:
    try:
        check_label(name)
    except ValueError as exc:
        raise errors.BadRequest(f'"{name[:63]}" is no provider: the name {exc}') from exc
