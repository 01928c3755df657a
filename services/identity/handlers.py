"""The methods of identity: sign in, issue and revoke tokens, change passwords. `main` serves them.

Each: who calls → what is asked → may they → act → answer. No message says which part of a credential was wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from libs.common import errors
from libs.common.access.live import LiveGrants
from libs.common.access.owed import explain, find_owed
from libs.common.access.principal import Principal
from libs.common.bus.base import Message
from libs.common.contracts import messages as m
from libs.common.crypto.envelope import Verifier
from libs.common.observe import log
from libs.common.resources.identity import Token, TokenPurpose, User
from libs.common.resources.meta import check_label
from libs.common.resources.providers import LOCAL
from libs.common.resources.requests import AccessPolicy
from libs.common.store.base import Store
from libs.common.store.objects import Objects, modify, read
from services.identity.audit.attempts import Attempt, Attempts
from services.identity.known_places import KnownPlaces, fold_name, network_of
from services.identity.logins import LastLogins
from services.identity.passwords import Passwords, check_policy
from services.identity.providers.running import Providers
from services.identity.rules import find_lacking_for
from services.identity.second_factor import SecondFactors, is_set
from services.identity.sign_in import PasswordSignIn, SignedIn
from services.identity.throttle import Throttle
from services.identity.tokens import SIGN_INS, Tokens


@dataclass(slots=True)
class Handlers:
    """What the methods need; stateless but for the throttle."""

    store: Store
    passwords: Passwords
    throttle: Throttle
    places: KnownPlaces
    tokens: Tokens
    logins: LastLogins
    verifier: Verifier
    grants: LiveGrants
    providers: Providers
    password_sign_in: PasswordSignIn
    factors: SecondFactors
    now: Callable[[], datetime]
    attempts: Attempts
    policies: Objects[AccessPolicy]

    async def login(self, request: m.LoginRequest, _message: Message) -> m.IssuedToken:
        """A sign-in with name and password. Raises Unauthenticated, TooManyRequests."""
        async with self.attempts.begin(
            "sign-in", address=request.client_address, provider=request.provider, typed=request.user
        ) as attempt:
            # No name that somebody types is the key of anything else.
            account = f"sign-in\n{request.provider}\n{fold_name(request.user)}"
            address = network_of(request.client_address)
            known = self.places.has(account, address)
            with self.throttle.guess(account, address, known=known):
                signed_in = await self.password_sign_in.sign_in(request.provider, request.user, request.password)
            attempt.is_about(signed_in.user)
            if signed_in.provider == LOCAL and is_set(signed_in.user):
                signed_in = await self._second_factor(signed_in, request, address if known else "")
            attempt.proved(signed_in.user)
            if address:
                place = self.places.note(signed_in.user.name, account, address)
                self.logins.note(signed_in.user, place, new=not known)
            issued = await self.let_in(
                signed_in, session=request.session, description=request.description, address=request.client_address
            )
            attempt.gave(issued.name)
            return issued

    async def _second_factor(self, signed_in: SignedIn, request: m.LoginRequest, place: str) -> SignedIn:
        """Six digits are guessed sooner than a password, so wrong codes have a count of their own, with the password right each time.

        One for all strangers together; another for each `place` from which the person came before, so that they keep nobody out.
        """
        if not request.one_time_code.strip():
            await self.factors.check(signed_in.user, "")
        account = code_account(signed_in.user)
        with self.throttle.guess(account, place, known=bool(place)):
            told = await self.factors.check(signed_in.user, request.one_time_code)
        return SignedIn(signed_in.user, signed_in.provider, (*signed_in.notices, *((told,) if told else ())))

    async def access_own(self, identity: str, password: str, *, owing: bool = False) -> User:
        """The caller's own user, for who gives the password again; `owing`: also for who must set up a second factor. Raises Denied."""
        principal = self.verifier.open(identity, owing=owing)
        if principal.is_scoped or principal.read_only:
            raise errors.Denied("a restricted token cannot change how people sign in: sign in")
        if principal.owes and "secondFactor" not in principal.owes:
            raise errors.Denied(explain(principal.owes))
        user = await self._caller(principal)
        if not user.private.password_hash:
            raise errors.BadRequest("your account is at a provider: set up a second factor there")
        with self.throttle.guess(f"own\n{user.name}", ""):
            if not await self.passwords.verify(user.private.password_hash, password):
                raise errors.Denied("the password is wrong", why="wrong_password")
        return user

    async def read_sign_in(self, name: str) -> Token:
        """The token of a sign-in, which says where it took place. Raises Unauthenticated when the token is gone, Denied for one
        that is no sign-in: it ends when it was to end, and what it could make of itself would not."""
        try:
            token = await read(self.store, Token, name)
        except errors.NotFound as exc:
            raise errors.Unauthenticated("your token was revoked: sign in again") from exc
        if token.spec.purpose not in SIGN_INS:
            raise errors.Denied(
                "a token that was made for a script, a file or a workload is not enough for this: sign in"
            )
        return token

    async def find_usable(self, name: str, uid: str) -> User:
        """The user who let somebody in a moment ago. Raises Denied when it is gone or disabled meanwhile."""
        user = await self._find(name)
        if user is None or user.uid != uid or not user.spec.enabled or user.deleting:
            raise errors.Denied("the user who let this machine in is gone or disabled")
        return user

    async def let_in(self, signed_in: SignedIn, *, session: bool, description: str, address: str) -> m.IssuedToken:
        """The token of a person who has just signed in, whatever the way."""
        purpose: TokenPurpose = "session" if session else "login"
        issued = await self.tokens.issue(
            signed_in.user, purpose, description=description, provider=signed_in.provider, client_address=address,
            provider_session=signed_in.session, parent_expiry=signed_in.until,
        )  # fmt: skip
        self.logins.note(signed_in.user)
        owed = find_owed(signed_in.user, signed_in.provider, purpose, self.providers.local_settings())
        return issued.model_copy(update={
            "notices": list(signed_in.notices), "must_change_password": "password" in owed,
            "must_set_second_factor": "secondFactor" in owed,
        })  # fmt: skip

    async def sign_in_options(self, _request: m.Empty, _message: Message) -> m.SignInOptions:
        """The enabled providers, the hub's own accounts first: what a sign-in page shows to anybody."""
        options = [
            m.SignInOption(
                provider=p.name, display_name=p.spec.display_name or p.name, type=p.spec.type,
                flow="redirect" if p.spec.type in ("github", "oidc") else "password",
            )
            for p in self.providers.all()
            if p.spec.enabled and not p.deleting
        ]  # fmt: skip
        return m.SignInOptions(
            options=sorted(options, key=lambda option: (option.provider != LOCAL, option.display_name))
        )

    async def issue_token(self, request: m.TokenIssue, _message: Message) -> m.IssuedToken:
        """A token for the caller, never good for more, nor (unless the caller signed in) for longer, than the caller's own.

        One of purpose exec belongs to the token that asked for it and never outlives it, whichever that is.
        """
        principal = self.verifier.open(request.identity)
        async with self.attempts.begin("issue-token", caller=principal) as attempt:
            user = await self._caller(principal)
            attempt.is_about(user)
            attempt.reason, attempt.note = (
                request.purpose,
                f"with the token {principal.token}" if principal.token else "",
            )
            if request.user and request.user != user.name:
                issued = await self._issue_for_service(principal, user, request, attempt)
            else:
                issued = await self._issue_own(principal, user, request)
            attempt.gave(issued.name)
            attempt.resource, attempt.name = "tokens", issued.name
            return issued

    async def _issue_own(self, principal: Principal, user: User, request: m.TokenIssue) -> m.IssuedToken:
        clusters = _within(principal.clusters, request.clusters, "cluster")
        parent = await self._own_token(principal)
        return await self.tokens.issue(
            user, request.purpose, description=request.description, clusters=clusters,
            projects=_within(principal.projects, request.projects, "project"),
            provider=parent.spec.provider if parent is not None else "",
            read_only=request.read_only or principal.read_only, ttl_s=request.ttl_s,
            parent_expiry=None if parent is None or (parent.spec.purpose in SIGN_INS and request.purpose != "exec") else parent.spec.expires_at,
            parent=principal.token if request.purpose == "exec" else "",
        )  # fmt: skip

    async def _issue_for_service(
        self, principal: Principal, caller: User, request: m.TokenIssue, attempt: Attempt
    ) -> m.IssuedToken:
        """A token for a machine. It depends on nobody's sign-in: who issued it may leave, and the job goes on."""
        if principal.is_scoped or principal.read_only:
            raise errors.Denied("a restricted token issues none for others: sign in")
        user = await self.access_other(principal, request.user)
        attempt.is_about(user)
        if not user.spec.service:
            raise errors.Denied(
                f'user "{user.name}" is a person, who makes tokens for themselves; tokens for others are issued to service users'
            )
        if not user.spec.enabled or user.deleting:
            raise errors.Denied(f'the service user "{user.name}" is disabled')
        if request.purpose != "api":
            raise errors.Invalid("a service user has tokens of purpose api")
        issued = await self.tokens.issue(
            user, "api", description=request.description, clusters=_within([], request.clusters, "cluster"),
            projects=_within([], request.projects, "project"), read_only=request.read_only, ttl_s=request.ttl_s,
        )  # fmt: skip
        log.get("identity").info("service_token_issued", user=user.name, token=issued.name, issued_by=caller.name)
        return issued

    async def extend_session(self, request: m.SessionExtend, _message: Message) -> m.SessionExtended:
        """The session that was used for this call goes on."""
        principal = self.verifier.open(request.identity)
        if not principal.token:
            raise errors.BadRequest("this caller did not come with a session")
        expires_at, ends_at = await self.tokens.extend(principal.token)
        self.attempts.note(
            "refresh-session", caller=principal, account=principal.user, resource="tokens", name=principal.token
        )
        return m.SessionExtended(expires_at=expires_at, ends_at=ends_at)

    async def change_password(self, request: m.PasswordChange, _message: Message) -> m.Empty:
        """One's own, with the current one; another person's by whoever may update users and holds all of that person's rights.

        Ends the person's other sign-ins; a password that somebody else set ends all of the person's tokens, and has to be changed first.
        """
        principal = self.verifier.open(request.identity, owing=True)
        async with self.attempts.begin("change-password", provider=LOCAL, caller=principal) as attempt:
            attempt.account = request.user if request.user == principal.user else ""
            await self._change_password(principal, request, attempt)
        return m.Empty()

    async def _change_password(self, principal: Principal, request: m.PasswordChange, attempt: Attempt) -> None:
        if principal.is_scoped or principal.read_only:
            raise errors.Denied("a restricted token cannot change passwords: sign in")
        caller = await self._caller(principal)
        own = request.user == caller.name
        if principal.owes and not own:
            raise errors.Denied(explain(principal.owes))
        user = caller if own else await self.access_other(principal, request.user)
        attempt.is_about(user)
        if own:
            with self.throttle.guess(f"own\n{caller.name}", ""):
                if not await self.passwords.verify(caller.private.password_hash, request.current_password):
                    raise errors.Denied("the current password is wrong", why="wrong_password")
            if request.new_password == request.current_password:
                raise errors.Invalid("the new password must differ from the current one")
        if user.spec.service:
            raise errors.Invalid(f'"{user.name}" is a service user: nobody signs in as it, tokens are issued for it')
        check_policy(request.new_password, user.name, self.providers.local_settings())
        stored = await self.passwords.hash(request.new_password)
        await self._store_hash(user, None, stored, must_change=not own)
        if own:
            ended = await self.tokens.revoke_all(user.uid, keep=principal.token, purposes=SIGN_INS)
        else:
            ended = await self.tokens.revoke_all(user.uid)
        attempt.reason = ("was_due" if "password" in principal.owes else "own") if own else "set_by_another"
        attempt.note = f"{ended} tokens revoked" + ("" if own else "; it must be changed at the next sign-in")
        log.get("identity").info("password_changed", user=user.name, changed_by=caller.name)

    # ── access: the only way from a name that somebody gave to a user ────────────────────────────────────────────────

    async def _find(self, name: str) -> User | None:
        try:
            return await read(self.store, User, check_label(name))
        except (ValueError, errors.NotFound):
            return None

    async def _caller(self, principal: Principal) -> User:
        """The caller's User. Raises Unauthenticated when it is gone, disabled, or another one of the same name."""
        user = await self._find(principal.user)
        if user is None or user.uid != principal.user_uid or not user.spec.enabled or user.deleting:
            raise errors.Unauthenticated("your user is gone or disabled: sign in again")
        return user

    async def access_other(self, principal: Principal, name: str) -> User:
        """Another person, for whoever may set that person's password. Raises Denied, NotFound."""
        grants = self.grants.current
        if not grants.is_allowed(principal, "update", "users", name):
            raise errors.Denied(f'cannot set the password of user "{name}": the right to update that user is missing')
        user = await self._find(name)
        if user is None:
            raise errors.not_found("User", name)
        lacking = find_lacking_for(grants, principal, name, self.grants.bindings, self.policies.all(), self.now())
        if lacking:
            raise errors.Denied(
                f'cannot set the password of user "{name}", who holds rights that you lack, or hold for a shorter time: {"; ".join(lacking[:5])}'
            )
        return user

    async def _own_token(self, principal: Principal) -> Token | None:
        if not principal.token:
            return None
        try:
            return await read(self.store, Token, principal.token)
        except errors.NotFound as exc:
            raise errors.Unauthenticated("your token was revoked: sign in again") from exc

    async def _store_hash(
        self, user: User, only_if: str | None, stored: str, *, must_change: bool | None = None
    ) -> None:
        """Write a hash to this very user; `only_if`: only while the stored one is still that."""

        def mutate(current: User) -> bool:
            if current.uid != user.uid or (only_if is not None and current.private.password_hash != only_if):
                return False
            current.private.password_hash = stored
            if must_change is not None:
                current.status.must_change_password = must_change
            return True

        await modify(self.store, User, user.name, mutate, now=self.now)


def code_account(user: User) -> str:
    """Under which wrong codes of this user are counted."""
    return f"code\n{user.name}"


def _within(held: list[str], asked: list[str], kind: str) -> tuple[str, ...]:
    """The clusters (or projects) a new token is good for: what was asked for, within what the caller's own token is good for."""
    for index, name in enumerate(asked):
        try:
            check_label(name)
        except ValueError as exc:
            raise errors.Invalid(f'{kind}s[{index}]: "{name}" is no {kind} name: it {exc}') from exc
    wanted = tuple(dict.fromkeys(asked))
    if not held:
        return wanted
    if not wanted:
        return tuple(held)
    beyond = set(wanted) - set(held)
    if beyond:
        raise errors.Denied(f"your token is not good for {kind} {', '.join(sorted(beyond))}: sign in")
    return wanted
