"""The exchange itself: a workload's token in, one of a service user out. `main` serves it; nobody has signed in here.

Which issuer it claims → whose keys → is it theirs, and of now → which credentials it fits → exactly one → a token.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from libs.common import errors
from libs.common.access.federation import is_usable, origin_of
from libs.common.bus.base import Message
from libs.common.contracts.messages import TokenExchange, TokenExchanged
from libs.common.observe import log
from libs.common.resources.federation import FederatedCredential
from libs.common.resources.identity import User
from libs.common.resources.meta import check_label
from libs.common.store.base import Store
from libs.common.store.objects import Objects, read
from services.identity.audit.attempts import Attempt, Attempts
from services.identity.federation.claims import check_claims, find_mismatch, read_unproved_issuer
from services.identity.federation.sources import SourceKey, Sources
from services.identity.foreign_token import Refused, shown
from services.identity.tokens import Tokens

MOST_SOURCES = 8
"""Different sources that one token is tried with: the credentials of one issuer seldom need more than one."""
REFUSED = "this token is not accepted: an administrator can read why in the hub's log"
AMBIGUOUS = "several credentials fit this token: name the one that is meant with the parameter resource"


class Ambiguous(Exception):
    """The text is for the log."""


class Exchanges:
    """Stateless but for the issuers' keys. `known` are the credentials, by informer."""

    def __init__(
        self,
        store: Store,
        known: Objects[FederatedCredential],
        sources: Sources,
        tokens: Tokens,
        now: Callable[[], datetime],
        attempts: Attempts,
    ) -> None:
        self._attempts = attempts
        self._store = store
        self._known = known
        self._sources = sources
        self._tokens = tokens
        self._now = now
        self._log = log.get("identity")

    async def exchange(self, request: TokenExchange, _message: Message) -> TokenExchanged:
        """Raises Unavailable when the issuer's keys cannot be had, TooManyRequests; any refusal is an answer."""
        async with self._attempts.begin("exchange-token", address=request.client_address) as attempt:
            return await self._exchange(request, attempt)

    async def _exchange(self, request: TokenExchange, attempt: Attempt) -> TokenExchanged:
        facts = {"client_address": request.client_address, "resource": shown(request.resource)}
        try:
            issuer = read_unproved_issuer(request.subject_token)
            facts["issuer"] = shown(issuer)
            credential, claims = await self._choose(request, issuer.rstrip("/"))
            facts.update(subject=shown(claims["sub"]), credential=credential.name, user=credential.spec.user)
            attempt.account, attempt.resource, attempt.name = (
                credential.spec.user,
                "federatedcredentials",
                credential.name,
            )
            user = await self._find_user(await self._read_again(credential))
        except Refused as exc:
            attempt.fail("refused", 400)
            attempt.note = str(exc)
            self._log.info("token_exchange_refused", reason=str(exc), **facts)
            return TokenExchanged(error="invalid_grant", description=REFUSED)
        except Ambiguous as exc:
            attempt.fail("ambiguous", 400)
            attempt.note = str(exc)
            self._log.info("token_exchange_refused", reason=str(exc), **facts)
            return TokenExchanged(error="invalid_request", description=AMBIGUOUS)
        spec = credential.spec
        issued = await self._tokens.issue(
            user, "federated", description=f"{credential.name}: {facts['subject']}"[:256], clusters=tuple(spec.clusters),
            projects=tuple(spec.projects), read_only=spec.read_only, ttl_s=spec.ttl_seconds, provider=origin_of(credential),
            client_address=request.client_address,
        )  # fmt: skip
        attempt.by, attempt.actor, attempt.actor_uid = "person", user.name, user.uid
        attempt.note = f"subject {facts['subject']}"
        attempt.gave(issued.name)
        self._log.info("token_exchanged", token=issued.name, token_id=shown(str(claims.get("jti", ""))), **facts)
        left_s = int((issued.expires_at - self._now()).total_seconds())
        return TokenExchanged(issued=issued, expires_in_s=left_s)

    async def _choose(self, request: TokenExchange, issuer: str) -> tuple[FederatedCredential, dict[str, Any]]:
        """The one credential that the token fits, and what the token says. Raises Refused, Ambiguous, Unavailable."""
        candidates = [c for c in self._known.all() if is_usable(c) and c.spec.issuer == issuer]
        if request.resource:
            candidates = [c for c in candidates if c.name == request.resource]
        if not candidates:
            raise Refused("no enabled credential is for this issuer, or none of the name that was given")
        proved = await self._prove(request.subject_token, candidates)
        fitting, reasons = [], []
        for credential in sorted(candidates, key=lambda c: c.name):
            claims = proved.get(SourceKey.of(credential.spec))
            if claims is None:
                continue
            mismatch = find_mismatch(credential.spec, claims)
            if mismatch:
                reasons.append(f"{credential.name}: {mismatch}")
            else:
                fitting.append((credential, claims))
        if not fitting:
            raise Refused(f"it is genuine and fits no credential ({'; '.join(reasons)[:400]})")
        if len(fitting) > 1:
            raise Ambiguous(f"it fits several credentials: {', '.join(c.name for c, _ in fitting)[:400]}")
        return fitting[0]

    async def _prove(self, token: str, candidates: list[FederatedCredential]) -> dict[SourceKey, dict[str, Any]]:
        """What the token says, by each source whose signature is on it. Raises Refused when there is none, Unavailable when none could be asked."""
        keys = list(dict.fromkeys(SourceKey.of(c.spec) for c in sorted(candidates, key=lambda c: c.name)))
        if len(keys) > MOST_SOURCES:
            raise Refused(
                f"{len(keys)} credentials of this issuer have different keys or authorities: name one by resource"
            )
        proved: dict[SourceKey, dict[str, Any]] = {}
        refused: list[str] = []
        unavailable: list[str] = []
        for key in keys:
            try:
                claims = await self._sources.decode(key, token)
                check_claims(claims, key.issuer, self._now().timestamp())
            except Refused as exc:
                refused.append(str(exc))
            except (errors.Unavailable, errors.Invalid) as exc:
                unavailable.append(exc.message)
            else:
                proved[key] = claims
        if unavailable:
            self._log.warning(
                "federation_issuer_unavailable", issuer=keys[0].issuer, error="; ".join(unavailable)[:400]
            )
            if not proved:
                raise errors.Unavailable("the issuer of this token cannot be asked for its keys at the moment")
        if not proved:
            raise Refused("; ".join(dict.fromkeys(refused))[:400])
        return proved

    async def _read_again(self, credential: FederatedCredential) -> FederatedCredential:
        """From the store itself: what was disabled or narrowed a moment ago gives nothing. Raises Refused."""
        try:
            current = await read(self._store, FederatedCredential, credential.name)
        except errors.NotFound as exc:
            raise Refused("the credential is gone") from exc
        if (current.uid, current.spec, current.deleting) != (credential.uid, credential.spec, False):
            raise Refused("the credential was changed at this very moment")
        return current

    async def _find_user(self, credential: FederatedCredential) -> User:
        """Raises Refused."""
        try:
            user = await read(self._store, User, check_label(credential.spec.user))
        except (errors.NotFound, ValueError) as exc:
            raise Refused("the credential's user is gone") from exc
        if user.uid != credential.spec.user_uid:
            raise Refused("the credential's user was made again under the same name: make the credential again, too")
        if not user.spec.service or not user.spec.enabled or user.deleting:
            raise Refused("the credential's user is disabled, or no service user")
        return user
