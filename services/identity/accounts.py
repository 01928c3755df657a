"""From an account at a provider to a User of the hub: found by the account's immutable id, made at the first sign-in.

Which user an account belongs to is a claim: a record of its own, written in one batch with the user, so that two sign-ins at once make one
user and no account ever belongs to two. A claim on a user that is gone is free again. Names never lead from an account to a user: who
is called like somebody else gets another user.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from libs.common import errors
from libs.common.access.principal import local_user_principal, principal_of
from libs.common.crypto.sealed import KeyRing
from libs.common.observe import log
from libs.common.resources.identity import User, UserSpec, UserStatus
from libs.common.resources.meta import ObjectMeta
from libs.common.resources.providers import IdentityProvider, LinkedIdentity
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Put, Store
from libs.common.store.objects import encode_unique, modify, read
from libs.common.store.record import pack_record, unpack_record
from services.identity.providers.base import Group, Identity
from services.identity.pushed import as_pushed

USER = BY_MODEL[User]
MAX_GROUPS = 5000
"""A user's stored object has room for about that many."""
_TRIES = 8
_NOT_LABEL = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose an account is. `revision` 0: nobody's yet."""

    key: str
    principal_id: str
    user: str = ""
    user_uid: str = ""
    revision: int = 0


class Accounts:
    """Reads and writes users and claims in the identity bucket."""

    def __init__(self, store: Store, ring: KeyRing, now: Callable[[], datetime]) -> None:
        self._store = store
        self._ring = ring
        self._now = now

    async def sign_in(self, provider: IdentityProvider, identity: Identity) -> User:
        """The user of this account, with what was just seen of it. Raises Denied for whoever may not come in."""
        snapshot = make_snapshot(provider, identity, self._now())
        for _ in range(_TRIES):
            claim, user = await self.owner(snapshot.principal_id)
            check_allowed(provider, snapshot if user is None else as_pushed(user, provider, snapshot))
            if user is not None:
                check_usable(user)
                return await self.note(user, provider, identity)
            if not provider.spec.create_users:
                raise errors.Denied(
                    f'your account at "{_shown(provider)}" is linked to no user here: sign in the way you do now and link it, or ask an administrator',
                    why="account_not_linked",
                )
            made = await self._create(claim, snapshot, identity)
            if made is not None:
                log.get("identity").info("user_created", user=made.name, principal_id=snapshot.principal_id)
                return await self._keep_secret(made, provider, identity)
        raise errors.Conflict("too many sign-ins of this account at once: try again")

    async def owner(self, principal_id: str) -> tuple[Claim, User | None]:
        """The claim on an account, and the living user that has it."""
        claim = await self.read_claim(principal_id)
        if not claim.user:
            return claim, None
        try:
            user = await read(self._store, User, claim.user)
        except errors.NotFound:
            return claim, None
        linked = any(i.principal_id == principal_id for i in user.status.identities)
        return claim, user if user.uid == claim.user_uid and linked else None

    async def link(self, user: User, provider: IdentityProvider, identity: Identity) -> User:
        """Give an account to a user who proved to have both. Raises Conflict when it is somebody else's, or there is one already."""
        snapshot = make_snapshot(provider, identity, self._now())
        check_allowed(provider, snapshot)
        for _ in range(_TRIES):
            claim, owner = await self.owner(snapshot.principal_id)
            if owner is not None and owner.uid == user.uid:
                check_allowed(provider, as_pushed(owner, provider, snapshot))
                return await self.note(owner, provider, identity)
            if owner is not None:
                raise errors.Conflict(
                    f'that account at "{_shown(provider)}" belongs to another user of this hub',
                    why="account_of_another",
                )
            current = await read(self._store, User, user.name)
            if current.uid != user.uid:
                raise errors.Unauthenticated("your user is gone: sign in again")
            if any(i.provider == provider.name for i in current.status.identities):
                raise errors.Conflict(f'you have an account at "{_shown(provider)}" linked already: unlink that first')
            current.status.identities.append(snapshot)
            revision = int(current.metadata.resource_version or 0)
            if await self.save(current, revision, claim):
                log.get("identity").info("account_linked", user=user.name, principal_id=snapshot.principal_id)
                return await self._keep_secret(current, provider, identity)
        raise errors.Conflict("your user changes too often at the moment: try again", kind="User", name=user.name)

    async def unlink(self, user: User, provider: str) -> User:
        """Take away the account at `provider`, with its groups. Raises NotFound."""
        if not any(i.provider == provider for i in user.status.identities):
            raise errors.NotFound(f'there is no account at "{provider}" to unlink')

        def mutate(current: User) -> bool:
            if current.uid != user.uid:
                return False
            current.status.identities = [i for i in current.status.identities if i.provider != provider]
            current.private.sealed.pop(refresh_key(provider), None)
            current.private.pushed.pop(provider, None)
            return True

        # The claim stays and counts no more: `owner` wants the user to say the same.
        return await modify(self._store, User, user.name, mutate, now=self._now)

    async def note(self, user: User, provider: IdentityProvider, identity: Identity) -> User:
        """Write down what the provider says of a user's account now. Returns the user as stored."""
        snapshot = make_snapshot(provider, identity, self._now())
        sealed = self._seal(user, provider, identity)

        def mutate(current: User) -> bool:
            if current.uid != user.uid:
                return False
            place = next(
                (n for n, i in enumerate(current.status.identities) if i.principal_id == snapshot.principal_id), None
            )
            if place is None:
                return False
            seen = as_pushed(current, provider, snapshot)
            seen.linked_at = current.status.identities[place].linked_at
            current.status.identities[place] = seen
            if sealed and not seen.gone:
                current.private.sealed[refresh_key(provider.name)] = sealed
            return True

        return await modify(self._store, User, user.name, mutate, now=self._now)

    async def mark_gone(self, user: User, principal_id: str, reason: str) -> User:
        """The provider says that the account is no more. A later sign-in with it, if there is one, takes that back."""

        def mutate(current: User) -> bool:
            found = next((i for i in current.status.identities if i.principal_id == principal_id), None)
            if current.uid != user.uid or found is None or found.gone:
                return False
            found.gone, found.groups = reason[:512], []
            current.private.sealed.pop(refresh_key(found.provider), None)
            return True

        return await modify(self._store, User, user.name, mutate, now=self._now)

    async def _keep_secret(self, user: User, provider: IdentityProvider, identity: Identity) -> User:
        return await self.note(user, provider, identity) if identity.refresh_secret else user

    def _seal(self, user: User, provider: IdentityProvider, identity: Identity) -> str:
        if not identity.refresh_secret:
            return ""
        return self._ring.seal(identity.refresh_secret, f"{user.uid}/{refresh_key(provider.name)}")

    async def _create(self, claim: Claim, snapshot: LinkedIdentity, identity: Identity) -> User | None:
        """A user of its own for the account; None when somebody was faster."""
        user = await self.draft(snapshot, identity)
        return await read(self._store, User, user.name) if await self.save(user, 0, claim) else None

    async def draft(self, snapshot: LinkedIdentity, identity: Identity) -> User:
        """A user for the account under a name that is free, not written yet. Raises Conflict."""
        wanted = make_user_name(identity.user_name)
        for name in (wanted, f"{wanted[:50]}-{_suffix(snapshot.principal_id)}"):
            try:
                await self._store.get(USER.key(name))
            except errors.NotFound:
                uid = str(uuid4())
                return User(
                    metadata=ObjectMeta(name=name, uid=uid, creation_timestamp=self._now(), generation=1),
                    spec=UserSpec(display_name=identity.display_name[:256] or identity.user_name[:256]),
                    status=UserStatus(principal_id=local_user_principal(uid), identities=[snapshot]),
                )
        raise errors.Conflict(
            f'there is no free user name for the account "{identity.user_name}": ask an administrator'
        )

    async def save(self, user: User, revision: int, *claims: Claim) -> int:
        """User and claims, all or none. Returns the user's new revision; 0 when somebody came between."""
        puts = []
        for claim in claims:
            record = pack_record({"principal": claim.principal_id, "user": user.name, "userUid": user.uid})
            puts.append(Put(claim.key, record, claim.revision))
        try:
            # The user is the last: its revision is what a reader waits for.
            return await self._store.batch([*puts, Put(USER.key(user.name), encode_unique(user), revision)])
        except errors.Conflict:
            return 0

    async def read_claim(self, principal_id: str) -> Claim:
        """Who said to have this id last; whether that counts, the user says."""
        key = claim_key(principal_id)
        try:
            entry = await self._store.get(key)
        except errors.NotFound:
            return Claim(key, principal_id)
        stored = unpack_record(entry)
        if stored["principal"] != principal_id:
            raise errors.Internal("two accounts have one claim: that cannot be")
        return Claim(key, principal_id, stored["user"], stored["userUid"], entry.revision)


def make_snapshot(provider: IdentityProvider, identity: Identity, now: datetime) -> LinkedIdentity:
    """What is stored of an account. Raises Denied for names that no account may have."""
    if is_reserved(identity.user_name) or is_reserved(identity.id):
        log.get("identity").warning(
            "reserved_account_refused", provider=provider.name, user_name=identity.user_name[:256]
        )
        raise errors.Denied('accounts whose name begins with "system:" cannot sign in here', why="reserved_name")
    notices = [identity.truncated] if identity.truncated else []
    groups = [group for group in identity.groups if not _refused(provider, group)]
    if len(groups) > MAX_GROUPS:
        notices.append(f"only the first {MAX_GROUPS} of {len(groups)} groups count")
        groups = sorted(groups, key=lambda group: group.id)[:MAX_GROUPS]
    try:
        principal_id = principal_of(provider.name, "user", identity.id)
        ids = sorted({principal_of(provider.name, "group", group.id) for group in groups})
    except ValueError as exc:
        raise errors.Unavailable(f'the provider "{_shown(provider)}" gave an id that cannot be used: {exc}') from exc
    return LinkedIdentity(
        provider=provider.name, principal_id=principal_id, user_name=identity.user_name[:256],
        email=identity.email[:320], groups=ids, truncated="; ".join(notices)[:512], refreshed_at=now, linked_at=now,
    )  # fmt: skip


def check_allowed(provider: IdentityProvider, snapshot: LinkedIdentity) -> None:
    """Whether the provider, and its settings, let this account in. Raises Denied."""
    if snapshot.gone:
        raise errors.Denied(
            f'your account at "{_shown(provider)}" was deactivated there: ask an administrator',
            why="account_deactivated",
        )
    allowed = provider.spec.allowed_principals
    if allowed and not set(allowed) & {snapshot.principal_id, *snapshot.groups}:
        raise errors.Denied(
            f'your account at "{_shown(provider)}" is not among those that may sign in here: ask an administrator',
            why="account_not_allowed",
        )


def check_usable(user: User) -> None:
    """Raises Denied for a user that was disabled here: the provider has vouched for the person, who may know it."""
    if not user.spec.enabled or user.deleting or user.spec.service:
        raise errors.Denied("your user is disabled on this hub: ask an administrator", why="user_disabled")


def is_reserved(name: str) -> bool:
    """Whether a name from outside looks like one of Kubernetes' own."""
    return unicodedata.normalize("NFKC", name).strip().casefold().startswith("system:")


def make_user_name(text: str) -> str:
    """A user name (RFC 1123 label) like the name that the person knows: `Jane.Doe@example.org` → `jane-doe`."""
    name = text.rpartition("\\")[2].partition("@")[0] or text
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    return _NOT_LABEL.sub("-", ascii_name.lower()).strip("-")[:50].strip("-") or "user"


def claim_key(principal_id: str) -> str:
    return f"claims.{hashlib.sha256(principal_id.encode('utf-8')).hexdigest()[:40]}"


def refresh_key(provider: str) -> str:
    """Where a user's refresh secret for a provider is kept in `private.sealed`."""
    return f"refresh:{provider}"


def _refused(provider: IdentityProvider, group: Group) -> bool:
    """A group that is called like one of Kubernetes' own counts for nothing."""
    refused = is_reserved(group.name) or is_reserved(group.id)
    if refused:
        log.get("identity").warning("reserved_group_refused", provider=provider.name, group=group.name[:256])
    return refused


def _suffix(principal_id: str) -> str:
    return hashlib.sha256(principal_id.encode("utf-8")).hexdigest()[:6]


def _shown(provider: IdentityProvider) -> str:
    return provider.spec.display_name or provider.name
