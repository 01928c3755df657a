"""Who gets in: a truth table for tokens, one agent for one token, and what a crash or a lost answer leaves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from libs.common import errors
from libs.common.contracts import messages as m
from libs.common.resources.clusters import Cluster, RegistrationToken, RegistrationTokenPrivate, RegistrationTokenSpec
from libs.common.resources.meta import ObjectMeta
from libs.common.store.objects import read
from services.agent.identity import make_key
from services.cluster_controller.model import (
    RegistrationSecret,
    check_public_key,
    parse_registration_secret,
    parse_revocation,
    revocation_key,
)
from services.cluster_controller.rules import check_registration
from tests.cluster_controller.made import Hub, said

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SECRET = RegistrationSecret("abc", "s3cret")

# token there, secret right, expired, used, cluster there, same uid, deleting, same key → what is raised
TABLE = [
    (True, True, False, False, True, True, False, False, None),
    (False, True, False, False, True, True, False, False, errors.Unauthenticated),
    (True, False, False, False, True, True, False, False, errors.Unauthenticated),
    (True, False, True, True, False, False, True, False, errors.Unauthenticated),  # a wrong secret learns nothing else
    (True, True, True, False, True, True, False, False, errors.Expired),
    (True, True, True, True, True, True, False, True, errors.Expired),
    (True, True, False, True, True, True, False, False, errors.Conflict),
    (True, True, False, True, True, True, False, True, None),
    (True, True, False, False, False, True, False, False, errors.NotFound),
    (True, True, False, False, True, False, False, False, errors.NotFound),
    (True, True, False, True, True, False, False, True, errors.NotFound),
    (True, True, False, False, True, True, True, False, errors.Conflict),
    (True, True, False, True, True, True, True, True, errors.Conflict),
]


@pytest.mark.parametrize(("there", "right", "expired", "used", "cluster", "same", "deleting", "key", "raised"), TABLE)
def test_registration_truth_table(
    there: bool, right: bool, expired: bool, used: bool, cluster: bool, same: bool, deleting: bool, key: bool,
    raised: type[errors.HerdsmanError] | None,
) -> None:  # fmt: skip
    ends = NOW - timedelta(seconds=0) if expired else NOW + timedelta(seconds=1)
    token = RegistrationToken(
        metadata=ObjectMeta(name="abc", uid="t"),
        spec=RegistrationTokenSpec(cluster="edge", cluster_uid="u1", expires_at=ends),
        private=RegistrationTokenPrivate(secret_hash=SECRET.hash if right else RegistrationSecret("abc", "other").hash),
    )
    token.status.used_at = NOW if used else None
    found = Cluster(
        metadata=ObjectMeta(name="edge", uid="u1" if same else "u2", deletion_timestamp=NOW if deleting else None)
    )
    found.status.agent.public_key = "KEY"
    arguments = (SECRET, token if there else None, found if cluster else None, NOW, "KEY" if key else "OTHER")
    if raised is None:
        check_registration(*arguments)
    else:
        with pytest.raises(raised):
            check_registration(*arguments)


async def test_an_agent_exchanges_its_token_for_a_credential_of_its_own_key(hub: Hub) -> None:
    cluster = await hub.create()
    key = make_key()[1]
    credential = await hub.register(await hub.issue(), key)
    assert credential.jwt == f"jwt:{cluster.uid}:{key}:{7 * 86_400}"
    assert credential.renew_after_s == 7 * 86_400 * 2 // 3
    stored = await hub.cluster()
    assert stored.status.agent.public_key == key
    assert stored.status.condition("Registered").status == "True"  # type: ignore[union-attr]


async def test_a_token_registers_one_agent_only(hub: Hub) -> None:
    await hub.create()
    token = await hub.issue()
    await hub.register(token)
    with pytest.raises(errors.Conflict, match="used already"):
        await hub.register(token)


async def test_of_many_agents_with_one_token_exactly_one_gets_in(hub: Hub) -> None:
    await hub.create()
    token = await hub.issue()
    results = await asyncio.gather(*(hub.register(token) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(r, m.AgentCredential) for r in results) == 1
    assert all(isinstance(r, m.AgentCredential | errors.Conflict) for r in results)


async def test_an_agent_that_did_not_hear_the_answer_asks_again(hub: Hub) -> None:
    await hub.create()
    token, key = await hub.issue(), make_key()[1]
    assert await hub.register(token, key) == await hub.register(token, key)


async def test_a_fresh_token_replaces_the_agent_and_revokes_the_old_key(hub: Hub) -> None:
    await hub.create()
    old, new = make_key()[1], make_key()[1]
    await hub.register(await hub.issue(), old)
    await hub.register(await hub.issue(), new)
    assert (await hub.cluster()).status.agent.public_key == new
    assert parse_revocation((await hub.store.get(revocation_key(old))).value).public_key == old
    with pytest.raises(errors.NotFound):
        await hub.store.get(revocation_key(new))


async def test_a_revoked_key_cannot_come_back_with_a_fresh_token(hub: Hub) -> None:
    await hub.create()
    old = make_key()[1]
    await hub.register(await hub.issue(), old)
    await hub.register(await hub.issue())
    with pytest.raises(errors.Conflict, match="revoked"):
        await hub.register(await hub.issue(), old)


async def test_an_expired_token_is_refused_and_says_what_to_do(hub: Hub) -> None:
    await hub.create()
    token = await hub.issue(ttl_s=60)
    hub.forward(61)
    with pytest.raises(errors.Expired, match="issue a fresh one"):
        await hub.register(token)


async def test_the_secret_is_stored_as_a_hash_and_shown_once(hub: Hub) -> None:
    await hub.create()
    token = await hub.issue()
    secret = parse_registration_secret(token)
    stored = await read(hub.store, RegistrationToken, secret.name)
    assert stored.private.secret_hash == secret.hash
    assert secret.secret not in str(stored.to_document())
    assert secret.secret not in repr(secret)
    assert secret.secret.encode() not in (await hub.store.get(f"registrationtokens.{secret.name}")).value


@pytest.mark.parametrize(
    ("who", "raised"),
    [("ada", None), ("olga", None), ("vic", errors.Denied), ("nobody", errors.NotFound)],
)
async def test_who_may_issue_registration_tokens(hub: Hub, who: str, raised: type[errors.HerdsmanError] | None) -> None:
    await hub.create()
    if raised is None:
        assert (await hub.issue(who=who)).startswith("hmr_")
    else:
        with pytest.raises(raised):
            await hub.issue(who=who)


async def test_a_right_in_one_cluster_issues_nothing_for_another(hub: Hub) -> None:
    await hub.create("edge")
    await hub.create("other")
    with pytest.raises(errors.NotFound):
        await hub.issue("other", who="olga")


async def test_unused_tokens_are_capped(hub: Hub) -> None:
    await hub.create()
    for _ in range(20):
        await hub.issue()
    with pytest.raises(errors.TooManyRequests):
        await hub.issue()


async def test_an_unused_token_says_for_which_cluster_it_is_and_a_used_one_does_not(hub: Hub) -> None:
    cluster = await hub.create()
    token = await hub.issue()
    answer = await hub.registration.handle_check(m.ManifestRequest(token=token))
    assert (answer.cluster, answer.cluster_uid) == ("edge", cluster.uid)
    await hub.register(token)
    with pytest.raises(errors.Conflict):
        await hub.registration.handle_check(m.ManifestRequest(token=token))


@pytest.mark.parametrize(
    "text", ["", "hmr", "hmr_", "hmr_abc", "hmr_abc_", "hm_abc_x", "hmr_ABC_x", "hmr_a.b_x", "hmr_ä_x", "x" * 256]
)
def test_what_is_no_token_is_unknown(text: str) -> None:
    with pytest.raises(errors.Unauthenticated):
        parse_registration_secret(text)


@pytest.mark.parametrize("key", ["", "U", "x" * 56, "UAAAA", make_key()[1][:-1] + "!", make_key()[0]])
def test_what_is_no_public_key_of_a_user_is_refused(key: str) -> None:
    with pytest.raises(errors.Invalid):
        check_public_key(key)


def test_a_key_with_one_wrong_character_is_refused() -> None:
    key = make_key()[1]
    check_public_key(key)
    with pytest.raises(errors.Invalid):
        check_public_key(key[:10] + ("A" if key[10] != "A" else "B") + key[11:])


async def test_renewal_is_for_the_registered_key_alone(hub: Hub) -> None:
    cluster = await hub.create()
    old, new = make_key()[1], make_key()[1]
    await hub.register(await hub.issue(), old)
    renewed = await hub.agents.handle_renew(m.AgentRenewal(public_key=old), said(cluster.uid))
    assert f":{old}:" in renewed.jwt
    await hub.register(await hub.issue(), new)
    with pytest.raises(errors.Denied, match="another agent has registered"):
        await hub.agents.handle_renew(m.AgentRenewal(public_key=old), said(cluster.uid))


async def test_a_cluster_that_the_hub_does_not_know_gets_no_credential(hub: Hub) -> None:
    with pytest.raises(errors.NotFound):
        await hub.agents.handle_renew(m.AgentRenewal(), said("nowhere"))


async def test_a_cluster_without_an_agent_gets_no_credential(hub: Hub) -> None:
    cluster = await hub.create()
    with pytest.raises(errors.Denied):
        await hub.agents.handle_renew(m.AgentRenewal(), said(cluster.uid))
