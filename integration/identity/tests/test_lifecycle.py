"""A provider that goes and comes back, one that is disabled, and a user whom nobody sees any more: a real directory, the hub as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest
import yaml

from integration.harness.hub import Hub, Person, eventually
from integration.identity import slapd
from integration.identity.slapd import group, person, user_dn
from services.identity.main import LEASE_S
from tests.conftest import no_task_is_left_behind

__all__ = ["no_task_is_left_behind"]
pytestmark = [pytest.mark.skipif(bool(slapd.why_not()), reason=slapd.why_not()), pytest.mark.timeout(300)]
PASSWORD = "correct horse"
CHECK_S = 5
"""The shortest that a provider may be looked at."""
OWN = "/apis/management.herdsman.dev/v1/users/idle"
LATE_S = 12.0
"""An interval with its jitter, the second look before a first failure counts, and a slow machine."""


@pytest.fixture
def directory(tmp_path):
    with slapd.running(tmp_path / "slapd", person("jane", PASSWORD) + group("ops", [user_dn("jane")])) as server:
        yield server


@pytest.fixture
async def hub(tmp_path):
    async with Hub(tmp_path / "hub", "--no-local-cluster") as hub:
        yield hub


async def add_provider(admin: Person, directory) -> None:
    spec = {
        "type": "ldap",
        "enabled": True,
        "checkSeconds": CHECK_S,
        "ldap": directory.settings(timeout_seconds=1).to_document(),
    }
    document = {
        "apiVersion": "management.herdsman.dev/v1",
        "kind": "IdentityProvider",
        "metadata": {"name": "corp"},
        "spec": spec,
    }
    await admin.sees("herdsman", "apply", "-f", "-", stdin=json.dumps(document).encode())


async def condition(admin: Person, kind: str, name: str, type_: str) -> dict[str, Any]:
    found = json.loads(await admin.sees("herdsman", "get", kind, name, "-o", "json"))
    return next((c for c in found["status"].get("conditions", ()) if c["type"] == type_), {})


async def becomes(admin: Person, kind: str, name: str, type_: str, status: str, timeout_s: float) -> dict[str, Any]:
    async def check() -> dict[str, Any] | None:
        found = await condition(admin, kind, name, type_)
        return found if found.get("status") == status else None

    return dict(await eventually(check, timeout_s))


async def log_in(hub: Hub, folder, name: str) -> Person:
    made = Person(hub, name, folder / name)
    (folder / name / "password").write_text(PASSWORD)
    await made.must(
        "login", hub.url, "--ca-file", str(hub.ca_file), "--provider", "corp", "--user", name,
        "--password-file", str(folder / name / "password"),
    )  # fmt: skip
    return made


async def test_a_directory_that_goes_away_and_comes_back_is_said_to_be_so(hub, directory, tmp_path):
    admin = await hub.admin()
    await add_provider(admin, directory)
    assert (await condition(admin, "idp", "corp", "Ready"))["reason"] == "Answers"
    assert (await becomes(admin, "idp", "local", "Ready", "True", 5))["reason"] == "OwnAccounts"

    directory.stop()
    said = await becomes(admin, "idp", "corp", "Ready", "False", LATE_S)
    assert said["reason"] == "Unreachable"
    assert "See whether the provider runs" in said["message"]
    listed = await admin.must("provider", "list")
    assert next(line for line in listed.splitlines() if line.startswith("corp")).split()[:4] == [
        "corp",
        "ldap",
        "true",
        "False",
    ]
    assert "See whether the provider runs" in await admin.must("provider", "list", "-o", "wide")
    before = await admin.sees("herdsman", "get", "idp", "corp", "-o", "jsonpath={.metadata.resourceVersion}")
    quiet_until = time.monotonic() + 2 * CHECK_S

    async def was_quiet() -> bool:
        now = await admin.sees("herdsman", "get", "idp", "corp", "-o", "jsonpath={.metadata.resourceVersion}")
        assert now == before, "looks that find the same must write nothing"
        return time.monotonic() > quiet_until

    await eventually(was_quiet, 4 * CHECK_S, every_s=1)

    # Somebody who gets in is the first to know that it is back: nobody waits for the next look.
    directory.start()
    await log_in(hub, tmp_path, "jane")
    await becomes(admin, "idp", "corp", "Ready", "True", LATE_S)

    # And somebody who does not is the first to know that it is gone.
    directory.stop()
    with pytest.raises(AssertionError, match="cannot be reached"):
        await log_in(hub, tmp_path / "again", "jane")
    await becomes(admin, "idp", "corp", "Ready", "False", LATE_S)
    directory.start()
    await admin.sees("herdsman", "wait", "--for=condition=Ready", "idp/corp", f"--timeout={4 * LATE_S:.0f}s")


async def test_whoever_looks_is_replaced_after_a_crash_and_after_a_restore(hub, directory, tmp_path):
    admin = await hub.admin()
    await add_provider(admin, directory)
    hub.kill("identity")
    directory.stop()
    # The lease of the one that was killed has to end first.
    await becomes(admin, "idp", "corp", "Ready", "False", LEASE_S * 4 / 3 + LATE_S)

    # A crash of everything leaves the lease of a process that is no more in the backup, too.
    file = tmp_path / "hub.backup"
    os.kill(hub.pids()["identity"], signal.SIGKILL)
    await hub.stop()
    await admin.must("backup", str(file), "--data-dir", str(hub.data))
    await admin.must("restore", str(file), "--data-dir", str(hub.data), "--replace", "--yes")
    directory.start()
    await hub.start()
    await becomes(admin, "idp", "corp", "Ready", "True", LEASE_S * 4 / 3 + LATE_S)


async def test_bindings_of_a_disabled_provider_stay_and_say_so(hub, directory, tmp_path):
    admin = await hub.admin()
    await add_provider(admin, directory)
    found = json.loads(await admin.must("provider", "search", "ops", "--kind", "group", "-o", "json"))
    principal = found["principals"][0]["principal_id"]
    await admin.must("grant", "--principal", principal, "--role", "admin", "--global")
    jane = await log_in(hub, tmp_path, "jane")
    await admin.must("grant", "--user", "jane", "--role", "cluster-viewer", "--global")
    await admin.must("group", "create", "local-ops")
    await admin.must("grant", "--group", "local-ops", "--role", "cluster-viewer", "--global")
    listed = json.loads(await admin.sees("herdsman", "get", "rtb", "-o", "json"))["items"]
    of_corp = {
        b["metadata"]["name"] for b in listed if b["spec"]["principal"] == principal or b["spec"].get("user") == "jane"
    }
    of_group = next(b["metadata"]["name"] for b in listed if b["spec"]["principal"].startswith("local:group:"))
    assert len(of_corp) == 2

    async def enable(word: str) -> None:
        await admin.sees("herdsman", "patch", "idp", "corp", "--type=merge", "-p", f'{{"spec":{{"enabled":{word}}}}}')

    await enable("false")
    began = time.monotonic()
    for name in of_corp:
        said = await becomes(admin, "rtb", name, "SubjectReachable", "False", 5)
        assert said["reason"] == "ProviderDisabled"
        assert '"corp" is disabled' in said["message"]
    assert time.monotonic() - began < 5
    assert (await condition(admin, "idp", "corp", "Ready"))["reason"] == "Disabled"
    assert (await jane.herdsman("whoami")).code != 0
    table = await admin.sees("herdsman", "get", "rtb")
    assert table.count("ProviderDisabled") == 2
    await admin.must("group", "delete", "local-ops", "--yes")
    assert (await becomes(admin, "rtb", of_group, "SubjectReachable", "False", 5))["reason"] == "GroupDeleted"

    await enable("true")
    for name in of_corp:
        await becomes(admin, "rtb", name, "SubjectReachable", "True", 5)
    # What ended does not come back by itself: she signs in, and has her role.
    assert (await jane.herdsman("whoami")).code != 0
    jane = await log_in(hub, tmp_path / "again", "jane")
    await jane.must("provider", "list")


async def test_a_user_whom_nobody_uses_is_disabled_and_refused_within_a_second(hub):
    admin = await hub.admin()
    busy, idle = await hub.person("busy"), await hub.person("idle")
    token = yaml.safe_load(idle.kubeconfig.read_text())["users"][0]["user"]["token"]
    tried = await admin.kubectl(
        "herdsman", "patch", "idp", "local", "--type=merge", "--dry-run=server", "-p",
        '{"spec":{"local":{"disableInactiveAfter":"1m"}}}',
    )  # fmt: skip
    assert tried.code == 0
    assert "shorter than a day" in tried.err
    await admin.sees(
        "herdsman", "patch", "idp", "local", "--type=merge", "-p", '{"spec":{"local":{"disableInactiveAfter":"1m"}}}'
    )
    assert (await hub.get(OWN, token))[0] == 200
    assert "nobody was inactive" in (await admin.herdsman("user", "list", "--inactive-for", "1h")).err
    signed_in = time.monotonic()

    async def disabled() -> dict[str, Any] | None:
        nonlocal signed_in
        if time.monotonic() - signed_in > 20:
            await busy.log_in(hub.folder / "busy.password")
            signed_in = time.monotonic()
        found = json.loads(await admin.sees("herdsman", "get", "user", "idle", "-o", "json"))
        return None if found["spec"]["enabled"] else found

    found = await eventually(disabled, 150, every_s=0.2)
    began = time.monotonic()

    async def refused() -> bool:
        return (await hub.get(OWN, token))[0] == 401

    await eventually(refused, 1, every_s=0.05)
    assert time.monotonic() - began < 1.5
    said = next(c for c in found["status"]["conditions"] if c["type"] == "Inactive")
    assert (said["status"], said["reason"]) == ("True", "NotUsed")
    assert "herdsman user enable idle" in said["message"]
    log = (hub.data / "logs" / "identity.log").read_text(encoding="utf-8")
    assert "inactive_user_disabled" in log
    shown = json.loads(await admin.sees("herdsman", "get", "users", "-o", "json"))["items"]
    # Who signs in stays, and so does the only administrator.
    assert {u["metadata"]["name"] for u in shown if u["spec"]["enabled"]} == {busy.name, admin.name}

    await admin.must("user", "enable", "idle")

    async def let_in() -> bool:
        return (await hub.get(OWN, token))[0] == 200

    await eventually(let_in, 2, every_s=0.05)
    assert (await condition(admin, "user", "idle", "Inactive"))["reason"] == "EnabledAgain"
