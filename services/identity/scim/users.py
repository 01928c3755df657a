"""Users: pushed accounts, written at the hub's users. One write for each change, which wins against nobody's newer one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scim2_models import Context, Meta, NotFoundException, PatchOp, Reference, UniquenessException

from libs.common import errors
from libs.common.access.principal import principal_of
from libs.common.contracts.messages import ScimCall
from libs.common.observe import log
from libs.common.resources.identity import PushedAccountPrivate
from libs.common.resources.identity import User as HubUser
from libs.common.resources.providers import IdentityProvider, LinkedIdentity
from libs.common.store.base import Store
from libs.common.store.informer import Informer
from libs.common.store.objects import Objects, modify, read
from services.identity.accounts import MAX_GROUPS, Accounts, Claim, make_snapshot
from services.identity.audit.attempts import Attempts
from services.identity.providers.base import Identity
from services.identity.pushed import settle
from services.identity.scim.directory import Directory, GroupRecord
from services.identity.scim.model import LENIENT, User, UserGroup
from services.identity.scim.requests import Query, check_user, parse_patch, parse_query, parse_user
from services.identity.tokens import Tokens

_TRIES = 8
_NOT_KEPT = {"schemas", "id", "meta", "groups"}


@dataclass(frozen=True, slots=True)
class Ask:
    """Who asks what of which provider; `by` is for the log."""

    provider: IdentityProvider
    by: str
    call: ScimCall

    @property
    def name(self) -> str:
        return self.provider.name

    def address(self, kind: str, resource_id: str) -> str:
        return f"{self.call.base_url}/{kind}/{resource_id}"


@dataclass(slots=True)
class Users:
    store: Store
    accounts: Accounts
    tokens: Tokens
    known: Objects[HubUser]
    directory: Directory
    now: Callable[[], datetime]
    attempts: Attempts

    async def create(self, ask: Ask, body: dict[str, Any]) -> User:
        """A user of its own for the account, or the one that signed in with it before. Raises UniquenessException."""
        given = parse_user(body, ask.name, Context.RESOURCE_CREATION_REQUEST)
        identity = identity_of(given)
        snapshot = make_snapshot(ask.provider, identity, self.now())
        for _ in range(_TRIES):
            account, owner = await self.accounts.owner(snapshot.principal_id)
            if owner is not None and (ask.name in owner.private.pushed or owner.deleting or owner.spec.service):
                raise UniquenessException(detail="there is a user with this externalId")
            name = await self._free_name(ask, given)
            pushed = _pushed(given, None, self.now())
            if owner is None:
                user, revision = await self.accounts.draft(settle(pushed, snapshot), identity), 0
            else:
                user, revision = owner, int(owner.metadata.resource_version or 0)
                snapshot.linked_at = _account(user, ask.name, pushed).linked_at
                _put_account(user, settle(pushed, snapshot))
            user.private.pushed[ask.name] = pushed
            written = await self.accounts.save(user, revision, account, name)
            if written:
                if not pushed.active:
                    self._tell("deactivate-account", ask, user, await self._end(user, ask.name))
                self._log("scim_user_created", ask, user, adopted=owner is not None, active=pushed.active)
                await reached(self.directory.users, written)
                return self.render(ask, user)
        raise _busy()

    async def get(self, ask: Ask) -> User:
        user, _ = await self._find(ask)
        return self.render(ask, user)

    async def find(self, ask: Ask) -> tuple[int, int, list[User]]:
        """How many there are, the place of the first that is given, and those of the page, by the name in the hub."""
        query = parse_query(User, ask.call.query)
        if query.attribute:
            found = await self._find_one(ask, query)
            total = 1 if found is not None else 0
            shown = found is not None and query.start == 1 and query.count > 0
            return total, query.start, [self.render(ask, found)] if found is not None and shown else []
        names = self.directory.user_names(ask.name)
        page = (self.known.get(name) for name in names[query.start - 1 : query.start - 1 + query.count])
        return len(names), query.start, [self.render(ask, u) for u in page if u and ask.name in u.private.pushed]

    async def replace(self, ask: Ask, body: dict[str, Any]) -> User:
        def change(before: User) -> User:
            # An id that was left out is the one that cannot change.
            whole = (
                body if any(key.lower() == "externalid" for key in body) else {**body, "externalId": before.external_id}
            )
            after = parse_user(whole, ask.name, Context.RESOURCE_REPLACEMENT_REQUEST)
            after.replace(before)
            return after

        return await self._change(ask, change)

    async def patch(self, ask: Ask, body: dict[str, Any]) -> User:
        patch: PatchOp[User] | None = parse_patch(User, body)[0]

        def change(before: User) -> User:
            after = before.model_copy(deep=True)
            if patch is not None:
                patch.patch(after, LENIENT)
            check_user(after, ask.name)
            return after

        return await self._change(ask, change)

    async def delete(self, ask: Ask) -> None:
        """The account is unlinked and its sign-ins end. The user stays, with what it has elsewhere; an administrator may delete it."""
        user, _ = await self._find(ask)
        stored = await self.accounts.unlink(user, ask.name)
        ended = await self.tokens.revoke_all(user.uid, provider=ask.name)
        self._log("scim_user_deleted", ask, user, tokens_revoked=ended)
        self._tell("unlink-account", ask, user, ended)
        await reached(self.directory.users, int(stored.metadata.resource_version or 0))

    async def put_in(self, ask: Ask, name: str, uid: str, group: GroupRecord, *, inside: bool) -> int:
        """Make a user a member of a group, or none. Returns the revision of the user as it is then."""

        def mutate(user: HubUser) -> bool:
            pushed = user.private.pushed.get(ask.name)
            if user.uid != uid or pushed is None:
                return False
            if pushed.groups.get(group.id) == (group.principal_id if inside else None):
                return False
            if inside:
                pushed.groups[group.id] = group.principal_id
            else:
                pushed.groups.pop(group.id, None)
            if len(pushed.groups) > MAX_GROUPS:
                raise errors.Invalid(f'user "{name}" would be in more than {MAX_GROUPS} groups')
            for account in user.status.identities:
                if account.provider == ask.name and not account.gone:
                    account.groups = settle(pushed, account).groups
            return True

        stored = await modify(self.store, HubUser, name, mutate, now=self.now)
        return int(stored.metadata.resource_version or 0)

    def render(self, ask: Ask, user: HubUser) -> User:
        pushed = user.private.pushed[ask.name]
        shown = User.model_validate(pushed.document, scim_policy=LENIENT)
        shown.id = user.uid
        shown.meta = Meta(
            resource_type="User", created=pushed.created, last_modified=pushed.modified, location=ask.address("Users", user.uid)
        )  # fmt: skip
        groups = (self.directory.group(ask.name, group_id) for group_id in sorted(pushed.groups))
        shown.groups = [
            UserGroup(value=g.id, ref=Reference(ask.address("Groups", g.id)), display=g.display_name)
            for g in groups
            if g
        ] or None
        return shown

    # ── inside ──

    async def _change(self, ask: Ask, change: Callable[[User], User]) -> User:
        for _ in range(_TRIES):
            user, before = await self._find(ask)
            after = change(self.render(ask, user))
            pushed = _pushed(after, before, self.now())
            if pushed == before:
                if not pushed.active:
                    await self._end(user, ask.name)
                return self.render(ask, user)
            names = [] if _same_name(after.user_name, before.user_name) else [await self._free_name(ask, after)]
            account = _account(user, ask.name, before)
            seen = account.model_copy(
                update={"user_name": pushed.user_name, "email": (identity_of(after).email or account.email)[:320]}
            )
            _put_account(user, seen if pushed.active and before.active else settle(pushed, seen))
            user.private.pushed[ask.name] = pushed
            written = await self.accounts.save(user, int(user.metadata.resource_version or 0), *names)
            if written:
                # Coming back ends them too: what was issued in the moment of going must not come back to life.
                ended = 0 if pushed.active and before.active else await self._end(user, ask.name)
                self._log("scim_user_changed", ask, user, active=pushed.active, tokens_revoked=ended)
                if pushed.active is not before.active:
                    self._tell("activate-account" if pushed.active else "deactivate-account", ask, user, ended)
                await reached(self.directory.users, written)
                return self.render(ask, user)
        raise _busy()

    async def _find(self, ask: Ask) -> tuple[HubUser, PushedAccountPrivate]:
        """From the id that a client gave to the user as it is stored now. Raises NotFoundException."""
        name = self.directory.user_name(ask.name, ask.call.id)
        user = await self._read(name) if name else None
        pushed = user.private.pushed.get(ask.name) if user is not None and user.uid == ask.call.id else None
        if user is None or pushed is None:
            raise NotFoundException(detail="there is no user of this id")
        return user, pushed

    async def _find_one(self, ask: Ask, query: Query) -> HubUser | None:
        if query.attribute == "id":
            name = self.directory.user_name(ask.name, query.value)
            user = await self._read(name) if name else None
            return user if user is not None and user.uid == query.value and ask.name in user.private.pushed else None
        if query.attribute == "externalId":
            try:
                _, user = await self.accounts.owner(principal_of(ask.name, "user", query.value))
            except ValueError:
                return None
            return user if user is not None and ask.name in user.private.pushed else None
        return (await self._named(ask, query.value))[1]

    async def _named(self, ask: Ask, user_name: str) -> tuple[Claim, HubUser | None]:
        """Who was pushed under this userName, which counts without its case. The record is good as long as its user says the same."""
        claim = await self.accounts.read_claim(f"{ask.name}:userName:{user_name.casefold()}")
        user = await self._read(claim.user) if claim.user else None
        pushed = user.private.pushed.get(ask.name) if user is not None and user.uid == claim.user_uid else None
        return claim, user if pushed is not None and _same_name(pushed.user_name, user_name) else None

    async def _free_name(self, ask: Ask, given: User) -> Claim:
        claim, holder = await self._named(ask, given.user_name or "")
        if holder is not None and holder.uid != ask.call.id:
            raise UniquenessException(detail="there is a user with this userName")
        return claim

    async def _read(self, name: str) -> HubUser | None:
        try:
            return await read(self.store, HubUser, name)
        except errors.NotFound:
            return None

    async def _end(self, user: HubUser, provider: str) -> int:
        return await self.tokens.revoke_all(user.uid, provider=provider)

    def _tell(self, action: str, ask: Ask, user: HubUser, ended: int) -> None:
        self.attempts.note(
            action, "scim", actor=ask.by, account=user.name, provider=ask.name, note=f"{ended} tokens revoked"
        )

    @staticmethod
    def _log(event: str, ask: Ask, user: HubUser, **facts: Any) -> None:
        log.get("identity").info(event, user=user.name, provider=ask.name, changed_by=ask.by, **facts)


def identity_of(given: User) -> Identity:
    """The account as a sign-in would see it."""
    emails = given.emails or []
    email = next((e.value for e in emails if e.primary and e.value), next((e.value for e in emails if e.value), None))
    parts = given.name
    full = (parts.formatted or " ".join(filter(None, (parts.given_name, parts.family_name)))) if parts else ""
    return Identity(
        id=given.external_id or "", user_name=given.user_name or "", display_name=given.display_name or full or "", email=email or ""
    )  # fmt: skip


def _pushed(given: User, before: PushedAccountPrivate | None, now: datetime) -> PushedAccountPrivate:
    """The record of an account as it is pushed now; `before` itself when nothing is new."""
    document = {key: value for key, value in given.model_dump().items() if key not in _NOT_KEPT}
    if before is not None and document == before.document:
        return before
    return PushedAccountPrivate(
        external_id=given.external_id or "", user_name=given.user_name or "", active=given.active is not False, document=document,
        groups=before.groups if before is not None else {}, created=before.created if before is not None else now, modified=now,
    )  # fmt: skip


def _account(user: HubUser, provider: str, pushed: PushedAccountPrivate) -> LinkedIdentity:
    wanted = principal_of(provider, "user", pushed.external_id)
    found = next((i for i in user.status.identities if i.principal_id == wanted), None)
    if found is None:
        raise NotFoundException(detail="there is no user of this id")
    return found


def _put_account(user: HubUser, seen: LinkedIdentity) -> None:
    user.status.identities = [seen if i.principal_id == seen.principal_id else i for i in user.status.identities]


def _same_name(one: str | None, other: str | None) -> bool:
    return (one or "").casefold() == (other or "").casefold()


async def reached(informer: Informer, revision: int) -> None:
    """Wait until this process reads what it wrote. It is written: a copy that is late changes nothing about that."""
    with contextlib.suppress(errors.Timeout):
        await informer.wait_revision(revision)


def _busy() -> errors.Conflict:
    return errors.Conflict("this user changes too often at the moment: try again", kind="User")
