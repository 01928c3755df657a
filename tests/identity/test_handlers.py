from __future__ import annotations

from datetime import timedelta

import pytest

from libs.common import errors
from libs.common.access.token_text import hash_secret, parse_token_text
from libs.common.contracts import messages as m
from libs.common.resources.identity import User
from libs.common.resources.providers import LocalSettings
from libs.common.resources.requests import AccessPolicy
from services.identity.known_places import AGE, MOST, KnownPlaces, network_of
from services.identity.passwords import Passwords
from services.identity.sign_in import WRONG
from tests.access import made
from tests.identity.service import ADA, BOB, EVE, MESSAGE, PASSWORD, running
from tests.identity.test_accounts import provider


async def test_a_sign_in_gives_a_token_whose_secret_is_stored_as_a_hash(clock):
    async with running(clock) as s:
        issued = await s.login()
        text = parse_token_text(issued.token)
        stored = await s.token(text.name)
        assert stored.private.secret_hash == hash_secret(text.secret)
        assert text.secret not in str(stored.to_document())
        assert stored.spec.user_uid == ADA.uid
        assert stored.spec.expires_at == clock() + timedelta(hours=16)
        await s.logins.flush()
        assert (await s.hub.get(User, "ada")).status.last_login == clock()


@pytest.mark.parametrize(
    ("user", "password"), [("ada", "wrong"), ("nobody", PASSWORD), ("No Body", PASSWORD), ("ada", "")]
)
async def test_a_refused_sign_in_never_says_which_part_was_wrong(clock, user, password):
    async with running(clock) as s:
        with pytest.raises(errors.Unauthenticated) as refused:
            await s.login(user, password)
        assert refused.value.message == WRONG


async def test_a_disabled_user_cannot_sign_in_nor_issue_tokens(clock):
    async with running(clock) as s:
        disabled = (await s.hub.get(User, "ada")).model_copy(deep=True)
        disabled.spec.enabled = False
        await s.hub.put(disabled)
        with pytest.raises(errors.Unauthenticated, match=WRONG):
            await s.login()
        with pytest.raises(errors.Unauthenticated):
            await s.issue(ADA)


async def test_a_user_without_a_password_cannot_sign_in(clock):
    async with running(clock) as s:
        await s.hub.put(made.user("machine"))
        with pytest.raises(errors.Unauthenticated, match=WRONG):
            await s.login("machine", "")


async def test_guessing_is_slowed_down(clock):
    async with running(clock) as s:
        for _ in range(6):
            with pytest.raises(errors.Unauthenticated):
                await s.login(password="a wrong password")
        with pytest.raises(errors.TooManyRequests):
            await s.login()


async def test_a_name_in_other_letters_that_a_directory_takes_for_the_same_is_no_new_name_to_guess_at(clock):
    async with running(clock) as s:
        await s.hub.put(provider("corp"))
        same = ("jane", "Jane", " jane", "jane ", "ja\u00adne", "\uff4aane", "j\u00e1ne", "jane\u200b", "JANE  ")
        for number, name in enumerate(same):
            with pytest.raises(errors.TooManyRequests if number > 5 else errors.Unauthenticated):
                await from_address(s, "192.0.2.1", "a wrong password", name, provider="corp")
        for name in ("jane doe", "janet", "j.ane"):
            with pytest.raises(errors.Unauthenticated):
                await from_address(s, "192.0.2.1", "a wrong password", name, provider="corp")


def from_address(service, address: str, password: str = PASSWORD, user: str = "ada", **more):
    return service.handlers.login(
        m.LoginRequest(user=user, password=password, client_address=address, **more), MESSAGE
    )  # fmt: skip


async def test_a_thousand_guesses_keep_nobody_out_who_signed_in_from_there_before(clock):
    async with running(clock) as s:
        await from_address(s, "192.0.2.7")
        refused = 0
        for number in range(1000):
            try:
                await from_address(s, f"10.0.{number % 250}.1", "a wrong password")
            except (errors.Unauthenticated, errors.TooManyRequests):
                refused += 1
        assert refused == 1000
        await from_address(s, "192.0.2.7")
        with pytest.raises(errors.TooManyRequests):
            await from_address(s, "192.0.2.8")
        # After a restart, too, and on another replica.
        await s.logins.flush()
        await s.hub.settle()
        again = KnownPlaces(s.hub.informers["users"], s.hub.now)
        assert again.has("sign-in\nlocal\nada", "192.0.2.7")
        assert not again.has("sign-in\nlocal\nada", "192.0.2.8")
        assert not again.has("sign-in\nlocal\neve", "192.0.2.7")


async def test_a_place_is_known_by_signing_in_alone_and_not_for_ever(clock):
    async with running(clock) as s:
        with pytest.raises(errors.Unauthenticated):
            await from_address(s, "192.0.2.7", "a wrong password")
        assert not s.handlers.places.has("sign-in\nlocal\nada", "192.0.2.7")
        await from_address(s, "192.0.2.7", user="ADA".lower())
        assert s.handlers.places.has("sign-in\nlocal\nada", "192.0.2.7")
        clock.forward(AGE.total_seconds())
        assert not s.handlers.places.has("sign-in\nlocal\nada", "192.0.2.7")


async def test_only_the_newest_places_are_kept(clock):
    async with running(clock) as s:
        for number in range(2 * MOST):
            await from_address(s, f"192.0.2.{number}")
            clock.forward(60)
        await s.logins.flush()
        places = (await s.hub.get(User, "ada")).private.places
        assert [p.network for p in places] == [f"192.0.2.{n}" for n in reversed(range(MOST, 2 * MOST))]
        assert not s.handlers.places.has("sign-in\nlocal\nada", "192.0.2.0")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"), ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("::ffff:192.0.2.7", "192.0.2.7"), ("fe80::1%eth0", "fe80::"), ("local", "local"), ("", ""),
    ],
)  # fmt: skip
def test_a_subscriber_of_ipv6_is_one_place_whatever_the_address(address, network):
    assert network_of(address) == network


async def test_guesses_at_a_name_are_no_wrong_passwords_of_who_is_signed_in(clock):
    async with running(clock) as s:
        here = await from_address(s, "192.0.2.7")
        for number in range(100):
            for user in ("ada", "own\nada", "code\nada"):
                with pytest.raises((errors.Unauthenticated, errors.TooManyRequests)):
                    await from_address(s, f"10.0.{number}.1", "a wrong password", user)
        await s.change(ADA, "ada", "another good password", PASSWORD, token=here.name)


async def test_a_hash_of_older_parameters_is_renewed_at_sign_in(clock):
    async with running(clock) as s:
        older = Passwords(memory_kib=32, passes=1)
        user = await s.hub.get(User, "ada")
        before = user.private.password_hash = await older.hash(PASSWORD)
        await older.aclose()
        await s.hub.put(user)
        await s.login()
        after = (await s.hub.get(User, "ada")).private.password_hash
        assert after != before
        assert not s.passwords.is_outdated(after)


async def test_a_user_made_again_is_not_the_old_one(clock):
    async with running(clock) as s:
        with pytest.raises(errors.Unauthenticated):
            await s.issue(made.user("ada", "uid-of-an-earlier-ada"))


@pytest.mark.parametrize(
    ("purpose", "ttl_s", "days"), [("api", None, 90), ("api", 10**9, 90), ("kubeconfig", None, 30), ("api", 86400, 1)]
)
async def test_the_life_of_a_token_is_cut_to_its_purpose(clock, purpose, ttl_s, days):
    async with running(clock) as s:
        issued = await s.issue(ADA, purpose=purpose, ttl_s=ttl_s)
        assert issued.expires_at == clock() + timedelta(days=days)


async def test_a_token_never_outlives_or_exceeds_the_one_that_asked_for_it(clock):
    async with running(clock) as s:
        parent = await s.issue(ADA, ttl_s=600, clusters=["east"], read_only=True)
        child = await s.issue(ADA, token=parent.name, read_only_caller=True, scope=["east"])
        stored = await s.token(child.name)
        assert stored.spec.expires_at == parent.expires_at
        assert stored.spec.read_only
        assert stored.spec.clusters == ["east"]
        with pytest.raises(errors.Denied, match="not good for cluster west"):
            await s.issue(ADA, token=parent.name, scope=["east"], clusters=["west"])


async def test_a_revoked_token_issues_nothing(clock):
    async with running(clock) as s:
        parent = await s.issue(ADA)
        envelope = s.hub.envelope(ADA, token=parent.name)
        await s.sign_outs.revoke(m.TokenRevoke(identity=envelope), MESSAGE)
        await s.sign_outs.revoke(m.TokenRevoke(identity=envelope), MESSAGE)
        with pytest.raises(errors.NotFound):
            await s.token(parent.name)
        with pytest.raises(errors.Unauthenticated):
            await s.issue(ADA, token=parent.name)


async def test_the_cap_removes_expired_tokens_first_and_sign_in_always_works(clock):
    async with running(clock, per_user=3) as s:
        short = await s.issue(ADA, ttl_s=60)
        await s.issue(ADA)
        first = await s.login()
        with pytest.raises(errors.TooManyRequests, match="3 live tokens"):
            await s.issue(ADA)
        second = await s.login()
        with pytest.raises(errors.NotFound):
            await s.token(first.name)
        clock.forward(61)
        await s.issue(ADA)
        with pytest.raises(errors.NotFound):
            await s.token(short.name)
        assert (await s.token(second.name)).spec.user == "ada"
        await s.issue(BOB)


async def test_expired_tokens_and_those_of_gone_users_are_removed(clock):
    async with running(clock) as s:
        mine, bobs = await s.issue(ADA, ttl_s=100), await s.issue(BOB)
        assert await s.sweep() == set()
        clock.forward(161)
        assert await s.sweep() == {ADA.uid}
        assert await s.token(bobs.name)
        await s.hub.delete(BOB)
        await s.hub.put(made.user("bob", "uid-of-another-bob"))
        assert await s.sweep() == {BOB.uid}
        assert await s.sweep() == set()
        for gone in (mine, bobs):
            with pytest.raises(errors.NotFound):
                await s.token(gone.name)


async def test_changing_ones_own_password_needs_the_current_one_and_ends_other_sign_ins(clock):
    async with running(clock) as s:
        here, there, api = await s.login(), await s.login(), await s.issue(ADA)
        with pytest.raises(errors.Denied, match="current password is wrong"):
            await s.change(ADA, "ada", "another good password", "not it")
        with pytest.raises(errors.Invalid, match="must differ"):
            await s.change(ADA, "ada", PASSWORD, PASSWORD)
        with pytest.raises(errors.Invalid, match="at least 12"):
            await s.change(ADA, "ada", "short", PASSWORD)
        await s.change(ADA, "ada", "another good password", PASSWORD, token=here.name)
        await s.login(password="another good password")
        with pytest.raises(errors.Unauthenticated):
            await s.login()
        assert await s.token(here.name)
        assert await s.token(api.name)
        with pytest.raises(errors.NotFound):
            await s.token(there.name)


async def test_the_local_provider_says_how_short_a_new_password_may_be(clock):
    async with running(clock) as s:
        local = provider("local", type="local", ldap=None, local=LocalSettings(min_password_length=24))
        await s.hub.put(local)
        with pytest.raises(errors.Invalid, match="at least 24 characters"):
            await s.change(ADA, "ada", "another good password", PASSWORD)
        await s.change(ADA, "ada", "another good password that is longer", PASSWORD)


async def test_a_common_password_is_refused_whoever_sets_it(clock):
    bindings = [made.binding(ADA, "admin", everywhere=True)]
    async with running(clock, bindings=bindings) as s:
        with pytest.raises(errors.Invalid, match="common password"):
            await s.change(ADA, "ada", "Password-2026!", PASSWORD)
        with pytest.raises(errors.Invalid, match="common password"):
            await s.change(ADA, "eve", "qwerty123456")


async def test_only_who_holds_all_rights_of_a_person_sets_that_persons_password(clock):
    bindings = [made.binding(ADA, "admin", everywhere=True), made.binding(BOB, "helper", everywhere=True)]
    async with running(clock, bindings=bindings) as s:
        api = await s.issue(EVE)
        await s.change(BOB, "eve", "set by the helper")
        await s.login("eve", "set by the helper")
        with pytest.raises(errors.NotFound):
            await s.token(api.name)
        with pytest.raises(errors.Denied, match="holds rights that you lack"):
            await s.change(BOB, "ada", "taking over the admin")
        with pytest.raises(errors.Denied, match="right to update that user is missing"):
            await s.change(EVE, "bob", "just trying it out")
        await s.hub.put(made.binding(EVE, "viewer", cluster="east"))
        with pytest.raises(errors.Denied, match="get pods"):
            await s.change(BOB, "eve", "another one for eve")


async def test_who_is_an_admin_for_an_hour_sets_no_password_of_who_is_one_for_good(clock):
    hour = clock() + timedelta(hours=1)
    bindings = [made.binding(ADA, "admin", everywhere=True), made.binding(BOB, "admin", everywhere=True, until=hour)]
    async with running(clock, bindings=bindings) as s:
        await s.change(BOB, "eve", "set by the administrator")
        with pytest.raises(errors.Denied, match="for a shorter time"):
            await s.change(BOB, "ada", "admin for good by this")
        await s.hub.put(made.binding(EVE, "admin", everywhere=True, name="eve-admin", until=hour))
        await s.change(BOB, "eve", "another by the administrator")


async def test_who_may_be_given_more_in_an_emergency_gets_no_password_of_who_lacks_it(clock):
    bindings = [made.binding(ADA, "admin", everywhere=True), made.binding(BOB, "helper", everywhere=True)]
    async with running(clock, bindings=bindings) as s:
        spec = {
            "roles": ["viewer"], "scopes": [{"anyCluster": True}], "requesters": [EVE.status.principal_id],
            "approvers": [ADA.status.principal_id], "breakGlass": True,
        }  # fmt: skip
        await s.hub.put(AccessPolicy.model_validate({"metadata": made.meta("glass"), "spec": spec}))
        with pytest.raises(errors.Denied, match="get pods"):
            await s.change(BOB, "eve", "another one for eve")


async def test_a_password_that_somebody_else_set_has_to_be_changed_first(clock):
    bindings = [made.binding(ADA, "admin", everywhere=True)]
    async with running(clock, bindings=bindings) as s:
        assert not (await s.login("eve")).must_change_password
        await s.change(ADA, "eve", "set by the administrator")
        issued = await s.login("eve", "set by the administrator")
        assert issued.must_change_password
        with pytest.raises(errors.Denied, match="herdsman password"):
            await s.issue(EVE, token=issued.name, owes=["password"])
        await s.change(
            EVE, "eve", "one that eve alone knows", "set by the administrator", token=issued.name, owes=["password"]
        )
        assert not (await s.hub.get(User, "eve")).status.must_change_password
        assert await s.token(issued.name), "the sign-in goes on"
        assert not (await s.login("eve", "one that eve alone knows")).must_change_password


async def test_who_must_change_a_password_changes_nobody_elses(clock):
    bindings = [made.binding(ADA, "admin", everywhere=True)]
    async with running(clock, bindings=bindings) as s:
        with pytest.raises(errors.Denied, match="nothing else is allowed"):
            await s.change(ADA, "eve", "set by the administrator", owes=["password"])
        with pytest.raises(errors.Denied, match="nothing else is allowed"):
            await s.change(ADA, "eve", "set by the administrator", owes=["secondFactor"])


async def test_a_required_second_factor_is_told_at_sign_in(clock):
    async with running(clock) as s:
        await s.hub.put(provider("local", type="local", ldap=None, local=LocalSettings(require_one_time_code=True)))
        assert (await s.login()).must_set_second_factor


async def test_who_owes_something_can_sign_out(clock):
    async with running(clock) as s:
        here = await s.login()
        envelope = s.hub.envelope(ADA, token=here.name, owes=["password"])
        await s.sign_outs.revoke(m.TokenRevoke(identity=envelope), MESSAGE)
        with pytest.raises(errors.NotFound):
            await s.token(here.name)


async def test_restricted_tokens_change_no_password(clock):
    async with running(clock) as s:
        with pytest.raises(errors.Denied):
            await s.change(ADA, "ada", "another good password", PASSWORD, read_only=True)
        with pytest.raises(errors.Denied):
            await s.change(ADA, "ada", "another good password", PASSWORD, clusters=["east"])


# ── other providers ──


async def test_a_sign_in_at_a_directory_gives_a_token_that_depends_on_it(clock):
    async with running(clock) as s:
        await s.hub.put(provider())
        s.directory.add("jane", PASSWORD, truncated="only 10 of 20 groups were read")
        request = m.LoginRequest(
            user="jane", password=PASSWORD, provider="corp", session=True, client_address="192.0.2.1"
        )
        issued = await s.handlers.login(request, MESSAGE)
        token = await s.token(issued.name)
        assert (token.spec.provider, token.spec.purpose, token.spec.client_address) == ("corp", "session", "192.0.2.1")
        assert issued.notices == ["only 10 of 20 groups were read"]


@pytest.mark.parametrize(("user", "password"), [("jane", "wrong"), ("nobody", PASSWORD), ("jane", "")])
async def test_a_wrong_sign_in_at_a_directory_says_no_more_than_a_local_one(clock, user, password):
    async with running(clock) as s:
        await s.hub.put(provider())
        s.directory.add("jane", PASSWORD)
        with pytest.raises(errors.Unauthenticated, match="^" + WRONG):
            await s.handlers.login(m.LoginRequest(user=user, password=password, provider="corp"), MESSAGE)


async def test_a_directory_that_is_away_is_not_a_wrong_password(clock):
    async with running(clock) as s:
        await s.hub.put(provider())
        s.directory.problem = errors.Unavailable("the directory does not answer")
        with pytest.raises(errors.Unavailable, match="does not answer"):
            await s.handlers.login(m.LoginRequest(user="jane", password=PASSWORD, provider="corp"), MESSAGE)


async def test_the_ways_to_sign_in_are_the_enabled_providers(clock):
    async with running(clock) as s:
        await s.hub.put(provider("b"), provider("a", displayName="Zoo"), provider("off", enabled=False))
        options = (await s.handlers.sign_in_options(m.Empty(), MESSAGE)).options
        assert [(o.provider, o.display_name, o.flow) for o in options] == [
            ("a", "Zoo", "password"),
            ("b", "b", "password"),
        ]


async def test_a_token_for_kubectl_belongs_to_the_one_that_asked_and_never_outlives_it(clock):
    async with running(clock) as s:
        login = parse_token_text((await s.login()).token).name
        issued = await s.issue(ADA, purpose="exec", token=login, clusters=["east"], ttl_s=10**6)
        assert issued.expires_at == clock() + timedelta(hours=1)
        token = await s.token(issued.name)
        assert (token.spec.parent, token.spec.clusters) == (login, ["east"])
        assert (await s.token((await s.issue(ADA, token=login)).name)).spec.parent == ""
        clock.forward(15.5 * 3600)
        last = await s.issue(ADA, purpose="exec", token=login)
        assert last.expires_at == clock() + timedelta(minutes=30)
