"""Who signed in, who did not, why and from where: in the signed log, as an auditor finds it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from integration.harness.hub import PASSWORD, Hub, eventually
from integration.identity import slapd
from integration.identity.replica import bus_as, is_let_guess, sign_in
from integration.identity.tests import test_sign_in as directories
from integration.identity.tests.test_local_accounts import guess, token_of
from libs.common import errors
from libs.common.contracts.messages import Empty, IdentityEvent, IdentityEvents
from libs.common.contracts.methods import AUDIT_IDENTITY

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]
TYPED = "hunter2-typed-into-the-wrong-field"
PREFIX = "audit.herdsman.dev/"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(tmp_path_factory) -> AsyncIterator[Hub]:
    async with Hub(tmp_path_factory.mktemp("audited"), "--no-local-cluster") as running:
        await running.admin()
        await running.person("ana")
        yield running


async def events_of(hub: Hub, *arguments: str) -> list[dict]:
    """What `herdsman audit tail` shows of identity's own events."""
    out = await (await hub.admin()).must("audit", "tail", "-o", "json", "--since", "1h", *arguments)
    events = [json.loads(line) for line in out.splitlines()]
    return [e for e in events if e["annotations"].get(f"{PREFIX}source") == "identity"]


def short(event: dict) -> tuple[str, str, str, str]:
    """(action, reason, who it is about, address)."""
    notes = event["annotations"]
    reason, account = (notes.get(f"{PREFIX}{name}", "") for name in ("reason", "account"))
    return event["verb"], reason, account, (event["sourceIPs"] or [""])[0]


async def shows(hub: Hub, *wanted: tuple[str, str, str, str], arguments: tuple[str, ...] = ()) -> list[dict]:
    """The events, once all that are wanted are among them."""

    async def are_there() -> list[dict]:
        found = await events_of(hub, *arguments)
        return found if set(wanted) <= {short(event) for event in found} else []

    return list(await eventually(are_there, 15, 0.3))


async def test_failures_and_sign_ins_are_found_by_user_with_reason_and_address_and_the_chain_verifies(hub, tmp_path):
    ana, admin = hub.people["ana"], await hub.admin()
    assert await guess(hub, "127.9.1.1", "ana", "a wrong password", 8) == [401] * 6 + [429] * 2
    assert await guess(hub, "127.9.1.2", TYPED, "ana") == [401]
    await ana.log_in(hub.folder / "ana.password")
    token = token_of(ana)
    await ana.must("logout")
    found = await shows(
        hub,
        ("sign-in", "wrong_password", "ana", "127.9.1.1"),
        ("sign-in", "throttled", "ana", "127.9.1.1"),
        ("sign-in", "", "ana", "127.0.0.1"),
        ("revoke-token", "sign_out", "ana", "127.0.0.1"),
        ("change-password", "was_due", "ana", "127.0.0.1"),
        arguments=("--account", "ana"),
    )
    failed = [event for event in found if short(event)[1:] == ("wrong_password", "ana", "127.9.1.1")]
    assert len(failed) == 6
    assert failed[0]["user"]["username"] == "system:anonymous"
    assert failed[0]["responseStatus"]["code"] == 401
    name = token.split("_")[1]
    assert {e["verb"] for e in found if e["annotations"].get(f"{PREFIX}token") == name} == {"sign-in", "revoke-token"}
    signed_in = next(e for e in found if short(e) == ("sign-in", "", "ana", "127.0.0.1"))
    assert signed_in["user"]["username"] == "ana"
    assert signed_in["userAgent"].startswith("herdsman")
    # A name that is nobody's is told without the name.
    await shows(hub, ("sign-in", "no_such_user", "", "127.9.1.2"), arguments=("--denied",))
    made = await shows(hub, ("create-user", "", "ana", "127.0.0.1"), arguments=("--verb", "create-user"))
    assert made[0]["user"]["username"] == "admin"
    table = await admin.must("audit", "tail", "--account", "ana", "--verb", "sign-in")
    assert "wrong_password, at local, from 127.9.1.1" in table
    export = tmp_path / "log.jsonl"
    await admin.must("audit", "export", "--output", str(export))
    assert "whole" in await admin.must("audit", "verify")
    assert "whole" in await admin.must(
        "audit", "verify", str(export), "--public-key", str(hub.data / "keys" / "envelope.pub")
    )
    text = export.read_text()
    assert TYPED not in text
    assert PASSWORD not in text
    assert token not in text


@pytest.mark.skipif(bool(slapd.why_not()), reason=slapd.why_not())
async def test_a_directorys_people_and_the_provider_itself(hub, tmp_path):
    admin = await hub.admin()
    with slapd.running(tmp_path / "slapd", directories.content()) as directory:
        await admin.sees("herdsman", "apply", "-f", "-", stdin=directories.provider(directory).encode())
        jane = await directories.someone(hub, "jane", tmp_path)
        with pytest.raises(AssertionError, match="the password is wrong"):
            await directories.someone(hub, "jane", tmp_path / "wrong", password="wrong")
        await jane.must("token", "create", "--description", "mine")
        found = await shows(
            hub, ("sign-in", "", "jane", "127.0.0.1"), ("sign-in", "wrong_credentials", "jane", "127.0.0.1"),
            ("issue-token", "api", "jane", "127.0.0.1"), arguments=("--account", "jane"),
        )  # fmt: skip
        assert {e["annotations"][f"{PREFIX}provider"] for e in found if e["verb"] == "sign-in"} == {"corp"}
        off = '{"spec":{"enabled":false}}'
        await admin.sees("herdsman", "patch", "identityprovider", "corp", "--type=merge", "-p", off)
        await admin.sees("herdsman", "patch", "user", "jane", "--type=merge", "-p", off)
        await shows(
            hub, ("create-provider", "", "", "127.0.0.1"), ("disable-provider", "", "", "127.0.0.1"),
            ("revoke-token", "provider_ended", "", ""), ("disable-user", "", "jane", "127.0.0.1"),
        )  # fmt: skip
    assert "whole" in await admin.must("audit", "verify")


async def test_no_other_service_can_speak_for_identity(hub):
    forged = IdentityEvents(events=[
        IdentityEvent(
            id="0d6e0c5e-6e0b-4a5c-9d9c-0a6b7d3f1c11", at="2026-01-02T03:04:05Z", action="sign-in", outcome="success", by="person", actor="admin"
        )
    ])  # fmt: skip
    for service in ("gateway", "authz"):
        async with bus_as(hub, service) as bus:
            with pytest.raises(errors.HerdsmanError):
                await bus.request(AUDIT_IDENTITY.subject, forged, Empty, timeout_s=2)
    assert not [e for e in await events_of(hub) if e["auditID"] == forged.events[0].id]


def workers_of(parent: int) -> list[int]:
    """The front door's small parent, and its processes."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [parent, *map(int, children)]


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


async def test_nobody_signs_in_while_no_front_door_writes_it_down_and_nothing_is_lost(hub):
    """The door stands still for a while: it takes nothing and is not gone either."""
    door = workers_of(hub.pids()["auth_proxy"])
    async with bus_as(hub, "gateway") as bus:
        assert (await sign_in(bus, "ana", PASSWORD, "198.51.100.1")).user == "ana"
        signal_all(door, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(errors.Unavailable, match="nobody signs in without a trace"):
                await sign_in(bus, "ana", PASSWORD, "198.51.100.2")
            assert time.monotonic() - began < 8
            # Known by now: the next ones are told at once.
            began = time.monotonic()
            with pytest.raises(errors.Unavailable, match="nobody signs in without a trace"):
                await sign_in(bus, "ana", PASSWORD, "198.51.100.3")
            assert time.monotonic() - began < 1
        finally:
            signal_all(door, signal.SIGCONT)

        async def may_sign_in() -> bool:
            try:
                return (await sign_in(bus, "ana", PASSWORD, "198.51.100.4")).user == "ana"
            except errors.Unavailable:
                return False

        await eventually(may_sign_in, 20)
    found = await shows(
        hub, ("sign-in", "", "ana", "198.51.100.1"), ("sign-in", "", "ana", "198.51.100.2"), ("sign-in", "", "ana", "198.51.100.4"),
        ("revoke-token", "not_written_down", "ana", "198.51.100.2"), arguments=("--account", "ana"),
    )  # fmt: skip
    withdrawn = next(e for e in found if short(e)[1] == "not_written_down")["annotations"][f"{PREFIX}token"]
    assert withdrawn not in await (await hub.admin()).sees("herdsman", "get", "tokens")


async def test_a_flood_of_failures_is_a_few_lines_and_a_count_and_a_stop_of_the_hub_loses_none(hub):
    """The front door stops before identity, which leaves the count in its store."""
    await hub.person("flo")
    async with bus_as(hub, "gateway") as bus:
        guesses = 0
        until = time.monotonic() + 5
        while time.monotonic() < until:
            await is_let_guess(bus, "flo", "203.0.113.9")
            guesses += 1
    assert guesses > 50
    await hub.stop()
    assert "audit_events_left" in (hub.data / "logs" / "identity.log").read_text()
    await hub.start()

    async def is_told() -> bool:
        found = [e for e in await events_of(hub, "--account", "flo") if e["sourceIPs"] == ["203.0.113.9"]]
        counted = [int(e["annotations"].get(f"{PREFIX}count", "1")) for e in found]
        return sum(counted) == guesses and len(found) <= 13

    await eventually(is_told, 20, 0.5)
    assert "whole" in await (await hub.admin()).must("audit", "verify")
