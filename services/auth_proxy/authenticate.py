"""From a request's head to the caller: bearer tokens, resolved from what this process knows, without a wait.

A token that was seen once is ready: the principal, its identity bytes per cluster, its envelope. One that was not is `NotRemembered`:
the route waits for `fetch`, and asks again. Any change of the token, of the one it was made with, or of its user drops that at once; `revocation` then looks at what is open. Messages never say which part of a credential was wrong.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Callable
from datetime import datetime

import structlog

from libs.common import errors
from libs.common.access.federation import is_counting, is_federated
from libs.common.access.grants import Grants
from libs.common.access.local_groups import LocalGroups
from libs.common.access.membership import may_use, membership_of
from libs.common.access.owed import find_owed
from libs.common.access.principal import Principal
from libs.common.crypto.envelope import LIFETIME_S, Signer
from libs.common.relay.head import RequestHead
from libs.common.resources import codec
from libs.common.resources.federation import FederatedCredential
from libs.common.resources.identity import Group, User
from libs.common.resources.providers import LOCAL, IdentityProvider
from libs.common.store.informer import Change
from libs.common.store.objects import Objects
from services.auth_proxy import identity
from services.auth_proxy.credential import REFUSED, find_credential, is_from_our_page, take_session
from services.auth_proxy.token_cache import Fact, NotRemembered, TokenCache

Now = Callable[[], datetime]
_ENVELOPE_REUSE_S = LIFETIME_S / 4
_GENERATIONS = 4
"""A token, the one it was made with, and so on: longer chains are refused."""
_FETCHES = 3 * _GENERATIONS


class Caller:
    """One token that may be used now, with what was made ready for it. Dropped as a whole, never changed in its facts."""

    __slots__ = (
        "_blocks",
        "_envelope",
        "_envelope_until",
        "_made_with",
        "clusters",
        "expires",
        "fact",
        "in_cookie",
        "principal",
        "secret_hash",
        "until",
    )

    def __init__(
        self, principal: Principal, fact: Fact, known_until: float = math.inf
    ) -> None:  # fmt: skip
        self.fact = fact
        self.in_cookie = fact.purpose == "session"
        self.principal = principal
        self.secret_hash = fact.secret_hash
        self.expires = fact.expires
        self.until = min(fact.expires, known_until)
        """Until when this is true: then the token has expired, or groups have become too old to count."""
        self.clusters = frozenset(principal.clusters)
        self._blocks: dict[str, identity.Block] = {}
        self._made_with: Grants | None = None
        self._envelope = b""
        self._envelope_until = 0.0

    def block(self, grants: Grants, cluster: str, cluster_uid: str) -> identity.Block:
        """The identity in one cluster by these grants; without groups where the caller has no business there."""
        if self._made_with is not grants:
            # Grants are immutable: another object is another truth, for every cluster.
            self._blocks = {}
            self._made_with = grants
        block = self._blocks.get(cluster)
        if block is None or block.cluster_uid != cluster_uid:
            groups = grants.synthetic_groups(self.principal, cluster, cluster_uid)
            block = self._blocks[cluster] = identity.render(self.principal, groups, cluster_uid)
        return block

    def envelope(self, signer: Signer, moment: float) -> bytes:
        """A signed envelope with most of its life before it."""
        if moment >= self._envelope_until:
            self._envelope = signer.seal(self.principal).encode("ascii")
            self._envelope_until = moment + _ENVELOPE_REUSE_S
        return self._envelope


class Authenticator:
    """Follows tokens and users. Invariant: a caller that is remembered is one that would be made the same way now."""

    def __init__(
        self, tokens: TokenCache, users: Objects[User], providers: Objects[IdentityProvider],
        credentials: Objects[FederatedCredential], groups: Objects[Group], now: Now,
    ) -> None:  # fmt: skip
        self._tokens = tokens
        self._users = users
        self._providers = providers
        self._credentials = credentials
        self._now = now
        self._local_groups = LocalGroups()
        self._log = structlog.get_logger().bind(logger="authenticate")
        self._callers: dict[str, Caller] = {}
        self._of_user: dict[str, set[str]] = {}
        self._of_parent: dict[str, set[str]] = {}
        tokens.on_forget.append(self._token_forgotten)
        users.informer.subscribe(self._user_changed, replay=False)
        for informer in (providers.informer, credentials.informer):
            informer.subscribe(self._origin_changed, replay=False)
        groups.informer.subscribe(self._group_changed, replay=True)

    def authenticate(self, head: RequestHead) -> Caller | None:
        """Who calls; None when no credential came. Raises Unauthenticated for any that is not good, NotRemembered before `fetch`."""
        known = head.block.memo
        if isinstance(known, Caller) and self.is_current(known):
            # The same bytes on the same connection: they were checked, and nothing that was true then has changed.
            return known
        credential = find_credential(head)
        if credential is None:
            return None
        caller = self.check(credential)
        if not head.upgrade:
            head.block.memo = caller
        return caller

    def authenticate_browser(self, head: RequestHead) -> Caller | None:
        """As `authenticate`, for the hub's own API, where the cookie of a browser's session counts when nothing else came."""
        session = take_session(head)
        caller = self.authenticate(head)
        if caller is not None or session is None:
            return caller
        try:
            # Not remembered with the head: on the same connection a cluster may be called next, where a cookie is nothing.
            caller = self.check(session, in_cookie=True)
        except errors.Unauthenticated:
            # A browser sends the cookie of a session that has ended with everything, and no script can take it away: were it refused here, the
            # sign-in page itself could not be had. Nobody calls then, and the gateway says who must be signed in.
            return None
        return caller if is_from_our_page(head, session) else None

    def check(self, credential: bytes, *, in_cookie: bool = False) -> Caller:
        """The caller of `hm_<name>_<secret>`; a session's token counts in its cookie alone. Raises Unauthenticated, NotRemembered."""
        kind, _, rest = credential.partition(b"_")
        name, _, secret = rest.partition(b"_")
        if kind != b"hm" or not name or not secret or len(credential) > 512:
            raise errors.Unauthenticated(REFUSED)
        caller = self.resolve(name.decode("ascii", "replace"))
        digest = hashlib.sha256(secret).hexdigest().encode("ascii")
        # Compared for an unknown name too, so that time says nothing about names.
        if (
            not hmac.compare_digest(digest, caller.secret_hash if caller else b"0" * 64)
            or caller is None
            or caller.in_cookie is not in_cookie
        ):
            raise errors.Unauthenticated(REFUSED)
        return caller

    async def fetch(self, name: str) -> None:
        """Wait for what `NotRemembered` named. Raises Unavailable."""
        await self._tokens.fetch(name)

    async def find(self, name: str) -> Caller | None:
        """As `resolve`, waiting for what is not remembered. Raises Unavailable when that can't be had."""
        for _ in range(_FETCHES):
            try:
                return self.resolve(name)
            except NotRemembered as missing:
                await self.fetch(missing.name)
        raise errors.Unavailable("the token changes faster than it can be read: try again", retry_after_s=1)

    def resolve(self, name: str) -> Caller | None:
        """The caller of the token with this name, if it may be used now. Raises NotRemembered."""
        caller = self._callers.get(name)
        moment = self._now().timestamp()
        if caller is not None and caller.until <= moment < caller.expires:
            self._drop(name)
            caller = None
        if caller is None:
            caller = self._make(name)
            if caller is None:
                return None
        if moment >= caller.expires or caller.fact.is_idle(moment):
            return None
        caller.fact.used = moment
        return caller

    def is_current(self, caller: Caller) -> bool:
        """Whether a caller that was found by a credential earlier would be found by it now; then that counts as a use."""
        moment = self._now().timestamp()
        if (
            self._callers.get(caller.principal.token) is not caller
            or moment >= caller.until
            or (caller.fact.idle_s and caller.fact.is_idle(moment))
        ):
            return False
        caller.fact.used = moment
        return True

    def _make(self, name: str) -> Caller | None:
        fact = self._tokens.find(name)
        if fact is None:
            return None
        now = self._now()
        parents_until = self._find_parents_end(fact, now.timestamp())
        if not parents_until:
            return None
        user = self._users.get(fact.user)
        if user is None or user.uid != fact.user_uid or not user.spec.enabled or user.deleting:
            return None
        if is_federated(fact.provider):
            if not is_counting(fact.provider, user, self._credentials.get):
                return None
        elif not may_use(fact.provider, user, self._providers.get, now):
            return None
        membership = membership_of(user, self._providers.get, now, self._local_groups.of(user.uid))
        local = self._providers.get(LOCAL)
        principal = Principal(
            user=user.name,
            user_uid=user.uid,
            principal_id=membership.principal_id,
            group_ids=list(membership.group_ids),
            token=name,
            clusters=fact.clusters,
            projects=fact.projects,
            read_only=fact.read_only,
            owes=find_owed(user, fact.provider, fact.purpose, local.spec.local if local is not None else None),
        )
        caller = Caller(
            principal,
            fact,
            min(parents_until, math.inf if membership.until is None else membership.until.timestamp()),
        )
        self._callers[name] = caller
        self._of_user.setdefault(user.name, set()).add(name)
        return caller

    def _find_parents_end(self, fact: Fact, moment: float) -> float:
        """When the first of the tokens that this one hangs on ends; 0 if one is not there now, or another person's. Raises NotRemembered."""
        name, until = fact.name, math.inf
        for _ in range(_GENERATIONS):
            if not fact.parent:
                return until
            parent = self._tokens.find(fact.parent)
            if parent is None or parent.user_uid != fact.user_uid or moment >= parent.expires:
                return 0.0
            self._of_parent.setdefault(parent.name, set()).add(name)
            fact, until = parent, min(until, parent.expires)
        return 0.0

    def _token_forgotten(self, name: str) -> None:
        if not name:
            self._forget_all()
            return
        self._drop(name)
        for child in self._of_parent.pop(name, ()):
            self._drop(child)

    def _user_changed(self, change: Change) -> None:
        plural, _, user = change.key.partition(".")
        if plural == "users":
            self._drop_all_of(user)

    def _group_changed(self, change: Change) -> None:
        plural, _, name = change.key.partition(".")
        if plural != "groups":
            return
        try:
            group = None if change.after is None else codec.decode(Group, change.after.value, change.after.revision)
        except (errors.HerdsmanError, ValueError, KeyError) as exc:
            # What can't be read gives nothing.
            self._log.error("group_unreadable", name=name, error=str(exc))
            group = None
        for user in self._local_groups.put(name, group):
            self._drop_all_of(user)

    def _drop_all_of(self, user: str) -> None:
        for name in self._of_user.pop(user, set()):
            self._drop(name)

    def _origin_changed(self, change: Change) -> None:
        if change.key.startswith(("identityproviders.", "federatedcredentials.")) and not is_status_of_provider(change):
            # Rare, and it may concern anybody.
            self._forget_all()

    def _forget_all(self) -> None:
        self._callers.clear()
        self._of_user.clear()
        self._of_parent.clear()

    def _drop(self, name: str) -> None:
        caller = self._callers.pop(name, None)
        if caller is not None:
            _discard(self._of_user, caller.principal.user, name)
            _discard(self._of_parent, caller.fact.parent, name)


def is_status_of_provider(change: Change) -> bool:
    """Whether only what is said of a provider changed, such as that it does not answer: that is nothing to who is in."""
    if not change.key.startswith("identityproviders.") or change.before is None or change.after is None:
        return False
    try:
        before, after = (codec.decode(IdentityProvider, e.value, e.revision) for e in (change.before, change.after))
    except (errors.HerdsmanError, ValueError):
        return False
    return (before.uid, before.spec, before.deleting) == (after.uid, after.spec, after.deleting)


def _discard(index: dict[str, set[str]], key: str, name: str) -> None:
    names = index.get(key)
    if names is not None:
        names.discard(name)
        if not names:
            del index[key]
