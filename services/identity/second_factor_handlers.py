"""The methods around a second factor: set it up, confirm it, take it away. Each wants the password again: an open page is not its person."""

from __future__ import annotations

from dataclasses import dataclass

from libs.common import errors
from libs.common.bus.base import Message
from libs.common.contracts import messages as m
from libs.common.observe import log
from libs.common.resources.providers import LOCAL
from services.identity.handlers import Handlers, code_account
from services.identity.second_factor import SecondFactors


@dataclass(slots=True)
class SecondFactorHandlers:
    """Beside `Handlers`, whose access rules these are, too."""

    handlers: Handlers
    factors: SecondFactors

    async def begin(self, request: m.SecondFactorBegin, _message: Message) -> m.SecondFactorBegun:
        """A secret for the caller's device; nothing is asked for before `confirm`."""
        principal = self.handlers.verifier.open(request.identity, owing=True)
        async with self.handlers.attempts.begin("begin-second-factor", provider=LOCAL, caller=principal) as attempt:
            attempt.account = principal.user
            user = await self.handlers.access_own(request.identity, request.password, owing=True)
            attempt.is_about(user)
            enrolment = await self.factors.begin(user, request.hub)
        return m.SecondFactorBegun(secret=enrolment.secret, uri=enrolment.uri)

    async def confirm(self, request: m.SecondFactorConfirm, _message: Message) -> m.RecoveryCodes:
        """From now on a code is asked for at sign-in. The recovery codes are seen here only."""
        principal = self.handlers.verifier.open(request.identity, owing=True)
        async with self.handlers.attempts.begin("set-second-factor", provider=LOCAL, caller=principal) as attempt:
            attempt.account = principal.user
            user = await self.handlers.access_own(request.identity, request.password, owing=True)
            attempt.is_about(user)
            codes = await self.factors.confirm(user, request.code)
        log.get("identity").info("second_factor_set", user=user.name)
        return m.RecoveryCodes(codes=codes)

    async def remove(self, request: m.SecondFactorRemove, _message: Message) -> m.Empty:
        """One's own with password and a code; another person's by whoever may set that person's password."""
        principal = self.handlers.verifier.open(request.identity)
        async with self.handlers.attempts.begin("remove-second-factor", provider=LOCAL, caller=principal) as attempt:
            if request.user in ("", principal.user):
                user = await self.handlers.access_own(request.identity, request.password)
                attempt.is_about(user)
                attempt.reason = "own"
                with self.handlers.throttle.guess(code_account(user), ""):
                    await self.factors.check(user, request.code)
            else:
                if principal.is_scoped or principal.read_only:
                    raise errors.Denied("a restricted token cannot change how people sign in: sign in")
                user = await self.handlers.access_other(principal, request.user)
                attempt.is_about(user)
                attempt.reason = "by_another"
            await self.factors.remove(user)
        log.get("identity").info("second_factor_removed", user=user.name, removed_by=principal.user)
        return m.Empty()
