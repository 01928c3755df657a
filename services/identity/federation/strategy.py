"""What is special about writing FederatedCredentials: whoever writes one lets others be its service user, so each write is admitted as issuing a token is."""

from __future__ import annotations

import asyncio
import ssl

from libs.common import errors
from libs.common.access.bindings import BindingIndex
from libs.common.apiserver import validate
from libs.common.apiserver.strategy import Strategy, WriteContext
from libs.common.resources.federation import FederatedCredential
from libs.common.resources.identity import User
from libs.common.resources.requests import AccessPolicy
from libs.common.store.base import Store
from libs.common.store.objects import Objects, read
from services.identity import rules
from services.identity.federation.shared_issuers import why_too_wide
from services.identity.federation.sources import SourceKey, Sources

TRY_S = 5.0


class FederatedCredentialStrategy(Strategy[FederatedCredential]):
    """The name is part of what its tokens carry, so it is a label."""

    model = FederatedCredential
    name_is_label = True

    def __init__(self, store: Store, sources: Sources, bindings: BindingIndex, policies: Objects[AccessPolicy]) -> None:
        self._store = store
        self._sources = sources
        self._bindings = bindings
        self._policies = policies

    async def prepare(
        self, ctx: WriteContext, old: FederatedCredential | None, new: FederatedCredential
    ) -> FederatedCredential:
        """The uid of the user is filled in once. An update may leave it out."""
        if old is not None:
            new.spec.user_uid = new.spec.user_uid or old.spec.user_uid
        elif not new.spec.user_uid:
            user = await self._find(new.spec.user)
            new.spec.user_uid = user.uid if user is not None else ""
        return new

    async def admit(self, ctx: WriteContext, old: FederatedCredential | None, new: FederatedCredential) -> None:
        if ctx.subresource:
            raise errors.Denied(
                "the status of a credential is written by the hub alone", kind=FederatedCredential.KIND, name=new.name
            )
        if old is not None and (old.spec.user, old.spec.user_uid) != (new.spec.user, new.spec.user_uid):
            raise _forbidden(new, "spec.user", "whom a credential is for cannot change: make another one")
        why = rules.why_not_issue(
            ctx.grants, ctx.principal, new.spec.user, self._bindings, self._policies.all(), ctx.now
        )
        if why:
            raise validate.denied(ctx.principal.user, ctx.verb, FederatedCredential, new.name, why)
        await self._check_user(new)
        await asyncio.to_thread(_check_texts, new)
        too_wide = why_too_wide(new.spec)
        if too_wide:
            raise validate.invalid_field(FederatedCredential, new.name, "spec.subject", new.spec.subject, too_wide)
        key = SourceKey.of(new.spec)
        if new.spec.enabled and not key.jwks and (old is None or not old.spec.enabled or SourceKey.of(old.spec) != key):
            await self._try_out(ctx, key)

    async def _check_user(self, new: FederatedCredential) -> None:
        user = await self._find(new.spec.user)
        if user is None or user.deleting:
            raise validate.invalid_field(
                FederatedCredential, new.name, "spec.user", new.spec.user, "there is no such user"
            )
        if not user.spec.service:
            raise _forbidden(
                new, "spec.user", f'"{user.name}" is a person: make a service user for the job (spec.service: true)'
            )
        if user.uid != new.spec.user_uid:
            raise _forbidden(
                new, "spec.userUid", "it is another user of the same name: delete this credential and make it again"
            )

    async def _try_out(self, ctx: WriteContext, key: SourceKey) -> None:
        """An issuer that can't be asked now is a warning: it may be there when the first token comes."""
        try:
            async with asyncio.timeout(TRY_S):
                await self._sources.try_out(key)
        except TimeoutError:
            ctx.warnings.append(
                f"spec.issuer: it did not answer within {TRY_S:.0f} s: its tokens are refused until it does"
            )
        except (errors.Unavailable, errors.Invalid) as exc:
            ctx.warnings.append(f"spec.issuer: its tokens are refused as long as this lasts: {exc.message}")

    async def _find(self, name: str) -> User | None:
        try:
            return await read(self._store, User, name)
        except errors.NotFound:
            return None


def _check_texts(new: FederatedCredential) -> None:
    """Keys and authorities that can be read. Raises Invalid. Not for the loop's own thread: a long list takes a while."""
    spec = new.spec
    if spec.jwks:
        from services.identity.federation.keys import parse_jwks

        try:
            parse_jwks(spec.jwks)
        except ValueError as exc:
            raise validate.invalid_field(FederatedCredential, new.name, "spec.jwks", spec.jwks, str(exc)) from exc
    if spec.ca:
        try:
            ssl.create_default_context(cadata=spec.ca)
        except (ssl.SSLError, ValueError) as exc:
            raise validate.invalid_field(
                FederatedCredential, new.name, "spec.ca", spec.ca[:40], "it holds no PEM certificates"
            ) from exc


def _forbidden(new: FederatedCredential, field: str, why: str) -> errors.Invalid:
    return validate.forbidden_field(FederatedCredential, new.name, field, why)
