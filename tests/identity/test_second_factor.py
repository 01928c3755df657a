from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from libs.common import errors
from libs.common.contracts import messages as m
from libs.common.resources.identity import User
from services.identity.second_factor import RECOVERY_CODES, STEP_S, find_step
from services.identity.second_factor_handlers import SecondFactorHandlers
from tests.access import made
from tests.identity.service import ADA, BOB, EVE, MESSAGE, PASSWORD, running

RFC_SEED = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
"""`12345678901234567890` of RFC 6238's appendix B."""


def code_at(secret: str, moment: float) -> str:
    import base64

    return TOTP(base64.b32decode(secret), 6, SHA1(), STEP_S, enforce_key_length=False).generate(moment).decode()


class Site:
    def __init__(self, service, clock) -> None:
        self.service, self.hub, self.clock = service, service.hub, clock
        self.handlers = SecondFactorHandlers(service.handlers, service.handlers.factors)
        self.secret = ""

    def code(self, offset_s: float = 0) -> str:
        return code_at(self.secret, self.clock().timestamp() + offset_s)

    async def begin(self, who: User = ADA, password: str = PASSWORD, **more) -> m.SecondFactorBegun:
        begun = await self.handlers.begin(
            m.SecondFactorBegin(identity=self.hub.envelope(who, **more), password=password), MESSAGE
        )
        self.secret = begun.secret
        return begun

    async def confirm(self, code: str) -> list[str]:
        request = m.SecondFactorConfirm(identity=self.hub.envelope(ADA), password=PASSWORD, code=code)
        return (await self.handlers.confirm(request, MESSAGE)).codes

    async def enrol(self) -> list[str]:
        await self.begin()
        codes = await self.confirm(self.code())
        self.clock.forward(STEP_S)
        return codes

    async def sign_in(self, code: str = "", password: str = PASSWORD) -> m.IssuedToken:
        request = m.LoginRequest(user="ada", password=password, one_time_code=code, client_address="192.0.2.1")
        return await self.service.handlers.login(request, MESSAGE)

    async def remove(self, who: User, **more) -> None:
        await self.handlers.remove(m.SecondFactorRemove(identity=self.hub.envelope(who), **more), MESSAGE)


@asynccontextmanager
async def site_of(clock):
    async with running(clock, bindings=(made.binding(BOB, "helper", everywhere=True),)) as service:
        yield Site(service, clock)


@pytest.mark.parametrize(
    ("moment", "code"), [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")]
)
def test_codes_are_those_of_the_rfc(moment, code):
    from datetime import UTC, datetime

    assert find_step(RFC_SEED, code, datetime.fromtimestamp(moment, UTC), after=-1) == moment // STEP_S


async def test_a_password_that_is_tried_at_the_beginning_is_written_down(clock):
    async with running(clock) as service:
        site = Site(service, clock)
        with pytest.raises(errors.Denied, match="password is wrong"):
            await site.begin(password="a wrong password")
        await site.begin()
        assert service.trail.told == [
            ("begin-second-factor", "failure", "wrong_password", "ada"),
            ("begin-second-factor", "success", "", "ada"),
        ]


async def test_who_has_the_password_and_guesses_codes_keeps_nobody_out_who_came_from_there_before(clock):
    async with site_of(clock) as site:
        await site.enrol()
        await site.sign_in(site.code())
        clock.forward(STEP_S)
        for number in range(50):
            request = m.LoginRequest(
                user="ada", password=PASSWORD, one_time_code="000000", client_address=f"10.0.{number}.1"
            )
            with pytest.raises((errors.Unauthenticated, errors.TooManyRequests)):
                await site.service.handlers.login(request, MESSAGE)
        await site.sign_in(site.code())


async def test_who_owes_a_second_factor_sets_one_up_and_who_owes_a_password_does_not(clock):
    async with site_of(clock) as site:
        with pytest.raises(errors.Denied, match="herdsman password"):
            await site.begin(owes=["password"])
        await site.begin(owes=["secondFactor"])
        await site.begin(owes=["password", "secondFactor"])
        assert len(await site.confirm(site.code())) == RECOVERY_CODES
        with pytest.raises(errors.Denied, match="nothing else is allowed"):
            await site.handlers.remove(
                m.SecondFactorRemove(identity=site.hub.envelope(ADA, owes=["password"]), password=PASSWORD), MESSAGE
            )


async def test_nothing_is_asked_for_before_the_device_showed_the_right_code(clock):
    async with site_of(clock) as site:
        await site.begin()
        assert await site.sign_in()
        with pytest.raises(errors.Invalid, match="clock of the device"):
            await site.confirm("000000")
        codes = await site.confirm(site.code())
        assert len(set(codes)) == RECOVERY_CODES
        with pytest.raises(errors.SecondFactorNeeded):
            await site.sign_in()
        stored = await site.hub.get(User, "ada")
        assert stored.status.second_factor
        kept = str(stored.private)
        assert site.secret not in kept
        assert not any(code in kept for code in codes)


async def test_a_code_counts_once_and_near_its_time(clock):
    async with site_of(clock) as site:
        await site.enrol()
        with pytest.raises(errors.Unauthenticated):
            await site.sign_in(site.code(-2 * STEP_S))
        with pytest.raises(errors.Unauthenticated):
            await site.sign_in(site.code(2 * STEP_S))
        code = site.code()
        assert await site.sign_in(f"{code[:3]} {code[3:]}")
        with pytest.raises(errors.Unauthenticated, match="used already"):
            await site.sign_in(code)


async def test_a_recovery_code_counts_once_and_tells_how_many_are_left(clock):
    async with site_of(clock) as site:
        codes = await site.enrol()
        issued = await site.sign_in(codes[3].upper())
        assert issued.notices == [f"you used a recovery code: {RECOVERY_CODES - 1} are left"]
        with pytest.raises(errors.Unauthenticated):
            await site.sign_in(codes[3])


async def test_without_the_right_password_nothing_tells_that_there_is_a_second_factor(clock):
    async with site_of(clock) as site:
        await site.enrol()
        for code in ("", site.code()):
            with pytest.raises(errors.Unauthenticated, match="user name or the password"):
                await site.sign_in(code, password="wrong")


async def test_codes_cannot_be_guessed_through_even_with_the_password(clock):
    async with site_of(clock) as site:
        await site.enrol()
        refused = 0
        for n in range(60):
            try:
                await site.sign_in(f"{n:06}")
            except errors.TooManyRequests:
                refused += 1
            except errors.Unauthenticated:
                continue
        assert refused > 20


async def test_it_is_taken_away_with_a_code_or_by_who_may_set_the_password(clock):
    async with site_of(clock) as site:
        await site.enrol()
        with pytest.raises(errors.SecondFactorNeeded):
            await site.remove(ADA, password=PASSWORD)
        with pytest.raises(errors.Denied, match="password is wrong"):
            await site.remove(ADA, password="wrong", code=site.code())
        with pytest.raises(errors.Denied):
            await site.remove(EVE, user="ada")
        await site.remove(BOB, user="ada")
        assert await site.sign_in()


@pytest.mark.parametrize("limit", [{"read_only": True}, {"clusters": ["east"]}])
async def test_a_restricted_token_sets_up_nothing(clock, limit):
    async with site_of(clock) as site:
        with pytest.raises(errors.Denied, match="restricted"):
            await site.begin(**limit)
