"""Who did what, from the call to the verified export, on the whole hub as its user runs it."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from integration.harness.hub import Hub, eventually

pytestmark = pytest.mark.timeout(300)
TOKEN = re.compile(r"hmr?_[a-z0-9]+_[A-Za-z0-9_-]{20,}")


@pytest.fixture
async def hub(tmp_path):
    made = Hub(tmp_path / "hub", "--no-local-cluster")
    await made.start(120)
    yield made
    await made.stop()


async def tail(person, *arguments: str) -> list[dict]:
    out = await person.must("audit", "tail", "-o", "json", *arguments)
    return [json.loads(line) for line in out.splitlines()]


async def test_calls_are_seen_exported_and_verified(hub, tmp_path):
    admin = await hub.admin()
    ana = await hub.person("ana")
    assert (await ana.herdsman("audit", "tail")).code == 4
    assert (await hub.get("/apis", "hm_no_no"))[0] == 401
    await hub.raw(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")

    async def denied():
        events = await tail(admin, "--denied", "--since", "1h")
        found = {(e["user"]["username"], e["verb"], e["responseStatus"]["code"]) for e in events}
        return found >= {("ana", "list", 403), ("system:anonymous", "get", 401)}

    await eventually(denied)
    events = await tail(admin, "--since", "1h")
    assert {"malformed", "create", "post", "list"} <= {e["verb"] for e in events}
    made = [e for e in events if e["verb"] == "create" and e.get("objectRef", {}).get("resource") == "users"]
    assert [e["user"]["username"] for e in made] == ["admin"]
    assert {e["user"]["username"] for e in await tail(admin, "--user", "ana")} == {"ana"}
    table = await admin.must("audit", "tail", "--user", "ana")
    assert "auditevents" in table
    # Reading leaves a trace, too.
    read = await tail(admin, "--resource", "auditevents.management.herdsman.dev", "--user", "admin")
    assert read
    assert read[0]["objectRef"]["resource"] == "auditevents"

    out = await admin.must("audit", "verify")
    assert "whole" in out
    file = tmp_path / "log.jsonl"
    await admin.must("audit", "export", "--output", str(file))
    key = hub.data / "keys" / "envelope.pub"
    assert "whole" in await admin.must("audit", "verify", str(file), "--public-key", str(key))
    text = file.read_text()
    assert text.count('{"kind":"Event"') > 10
    assert not TOKEN.search(text)
    for tampered in (
        text.replace('"username":"ana"', '"username":"bob"', 1),
        text.replace(next(line for line in text.splitlines(keepends=True) if '"kind":"Event"' in line), "", 1),
    ):
        file.write_text(tampered)
        answer = await admin.herdsman("audit", "verify", str(file))
        assert answer.code == 1
        assert "BROKEN" in answer.out


async def test_an_auditor_reads_and_does_nothing_else_and_policies_count_without_a_restart(hub, tmp_path):
    admin = await hub.admin()
    eve = await hub.person("eve")
    await admin.must("grant", "--user", "eve", "--role", "auditor", "--global")
    assert await tail(eve, "--since", "1h")
    assert (
        await eve.herdsman("user", "create", "mallory", "--password-file", str(hub.folder / "eve.password"))
    ).code == 4
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "apiVersion: management.herdsman.dev/v1\nkind: AuditPolicy\nmetadata: {name: quiet}\n"
        "spec:\n  rules:\n  - {level: None, users: [eve], resources: [{group: management.herdsman.dev, resources: [users]}]}\n"
        "  - {level: RequestResponse, resources: [{group: management.herdsman.dev}]}\n"
    )
    applied = await admin.kubectl("herdsman", "apply", "-f", str(policy))
    assert applied.code == 0, applied.err
    assert "leave no trace" in applied.err
    assert "quiet" in await eve.sees("herdsman", "get", "auditpolicies")

    async def shows_bodies():
        await admin.must("role", "list")
        await admin.kubectl(
            "herdsman", "create", "token"
        )  # refused by kubectl or by the hub: what matters is that nothing of it is shown
        await admin.must("token", "create", "--description", "canary")
        events = await tail(admin, "--user", "admin", "--since", "1h")
        return any("responseObject" in e and e["objectRef"]["resource"] == "roletemplates" for e in events)

    await eventually(shows_bodies, 20, 0.5)
    before = len(await tail(admin, "--user", "eve", "--resource", "users", "--since", "1h"))
    await eve.herdsman("user", "list")
    await asyncio.sleep(1)
    assert len(await tail(admin, "--user", "eve", "--resource", "users", "--since", "1h")) == before
    everything = await admin.must("audit", "tail", "--since", "1h", "-o", "json")
    assert not TOKEN.search(everything)


async def test_a_killed_front_door_loses_no_more_than_its_last_moment_and_the_log_tells(hub):
    admin = await hub.admin()
    token = (await admin.must("token", "create")).strip().splitlines()[-1]
    statuses: list[str] = []
    stop = asyncio.Event()

    async def call() -> None:
        while not stop.is_set():
            number = len(statuses)
            try:
                status, _ = await hub.get(f"/apis?limit={number}", token)
            except (OSError, ValueError, IndexError):
                # The door is down for a moment: such a call has no answer and may have no event.
                await asyncio.sleep(0.05)
                continue
            statuses.append(f"/apis?limit={number}" if status == 200 else "")

    callers = asyncio.create_task(call(), name="caller")
    await asyncio.sleep(2)
    answered = [s for s in statuses if s]
    await asyncio.sleep(0.6)
    hub.kill("auth_proxy")
    await asyncio.sleep(1)
    await hub.wait_ready()
    count = len(statuses)

    async def goes_on():
        return len(statuses) > count

    await eventually(goes_on)
    stop.set()
    await callers
    await asyncio.sleep(1)
    seen = {e["requestURI"] for e in await tail(admin, "--since", "1h", "--verb", "get")}
    # What was answered more than the flush interval before the kill is there.
    assert set(answered) <= seen
    answer = await admin.herdsman("audit", "verify")
    assert answer.code == 6, answer
    assert "without a stop" in answer.err
    assert "broken" not in answer.err


async def test_a_clean_restart_leaves_a_whole_log(hub):
    admin = await hub.admin()
    await hub.stop()
    await hub.start()
    answer = await admin.herdsman("audit", "verify")
    assert answer.code == 0, answer
    assert "2 chains" in answer.out
