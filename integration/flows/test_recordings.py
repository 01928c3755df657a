"""Recorded sessions from end to end: a policy by kubectl, a session in a terminal, and the command line that lists, plays and checks it."""

from __future__ import annotations

import json

import pytest
import pytest_asyncio

from integration.harness.hub import eventually
from integration.kubelab.doctor import examine
from integration.kubelab.kubectl import find_kubectl
from integration.recording.terminal import Terminal

IMAGE = "herdsman.dev/kubelab/busybox:1"
NAMESPACE = "recorded"
POLICY = json.dumps({
    "apiVersion": "management.herdsman.dev/v1", "kind": "AuditPolicy", "metadata": {"name": "record-sessions"},
    "spec": {"rules": [{"recordSessions": True, "clusters": ["local"], "namespaces": [NAMESPACE],
                        "resources": [{"group": "", "resources": ["pods/exec", "pods/attach"]}]}]},
}).encode()  # fmt: skip
pytestmark = [
    pytest.mark.full,
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.skipif(
        not all(finding.ok for finding in examine()),
        reason="pods need root, containerd and runc: herdsman-kubelab doctor",
    ),
]


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def admin(hub):
    """The administrator with a namespace whose sessions are recorded, and a pod in it."""
    person = await hub.admin()
    await person.sees("local", "create", "namespace", NAMESPACE)
    await person.sees(
        "local", "-n", NAMESPACE, "run", "box", f"--image={IMAGE}", "--restart=Never", "--", "sleep", "3600"
    )
    await person.sees("local", "-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/box", "--timeout=60s")

    async def works() -> bool:
        return (await person.kubectl("local", "-n", NAMESPACE, "exec", "box", "--", "true")).code == 0

    await eventually(works, 30)
    assert await person.must("recordings", "list", "-o", "name") == ""
    await person.sees("herdsman", "apply", "-f", "-", stdin=POLICY)
    yield person
    await person.sees("herdsman", "delete", "auditpolicy", "record-sessions")
    await person.sees("local", "delete", "namespace", NAMESPACE, timeout_s=120)


async def last(admin) -> str:
    """The id of the newest recording, once it is over."""

    async def ended() -> str:
        listed = json.loads(await admin.must("recordings", "list", "-o", "json"))["items"]
        return listed[0]["facts"]["id"] if listed and listed[0]["outcome"] else ""

    return str(await eventually(ended, 15))


async def test_a_session_is_listed_played_exported_and_verified(admin, tmp_path):
    terminal = Terminal(
        str(find_kubectl()), "--kubeconfig", str(admin.kubeconfig), "--context", "local", "-n", NAMESPACE, "exec", "-it", "box", "--", "sh",
        environment={}, size=(90, 25),
    )  # fmt: skip
    await terminal.start()
    await terminal.expect(b"# ")
    terminal.type(b"stty size; printf '\\033]52;c;ZQ==\\007'; exit 4\n")
    assert await terminal.end() == 4
    assert b"25 90" in terminal.output
    id_ = await last(admin)
    listed = await admin.must("recordings", "list", "--user", "admin", "--cluster", "local", "--since", "1h")
    assert id_ in listed
    assert "recorded/box" in listed
    assert "exit 4" in listed
    played = await admin.herdsman("recordings", "play", id_, "--speed", "100", "--max-idle", "1s")
    assert played.code == 0, played.err
    assert "25 90" in played.out
    assert "\x1b]52" not in played.out
    assert "exit 4" in played.err
    file = tmp_path / "session.cast"
    await admin.must("recordings", "export", id_, "--format", "asciicast", "--output", str(file))
    head, *events = (json.loads(line) for line in file.read_text().splitlines())
    assert (head["width"], head["height"]) == (90, 25)
    assert "25 90" in "".join(event[2] for event in events)
    assert "is whole and genuine" in await admin.must("recordings", "verify", id_)


async def test_its_trace_in_the_audit_log_names_the_recording(admin):
    await admin.kubectl("local", "-n", NAMESPACE, "exec", "box", "--", "echo", "traced")
    id_ = await last(admin)

    async def is_named() -> bool:
        return id_ in await admin.must("audit", "tail", "--resource", "pods/exec", "-o", "json")

    await eventually(is_named, 20)


async def test_other_namespaces_are_not_recorded(admin):
    before = await admin.must("recordings", "list", "-o", "name")
    await admin.kubectl("local", "-n", "kube-system", "exec", "nobody", "--", "true")
    assert await admin.must("recordings", "list", "-o", "name") == before


async def test_an_owner_of_the_cluster_sees_none_and_an_auditor_all(hub, admin):
    olga = await hub.person("olga")
    await admin.must("grant", "--user", "olga", "--role", "cluster-owner", "--cluster", "local")
    await olga.fetch_kubeconfig()
    refused = await olga.herdsman("recordings", "list")
    assert refused.code == 4
    await admin.must("grant", "--user", "olga", "--role", "auditor", "--global")

    async def sees() -> bool:
        return bool((await olga.herdsman("recordings", "list", "-o", "name")).out)

    await eventually(sees, 10)


async def test_a_killed_front_door_leaves_the_session_unfinished_and_what_was_stored_genuine(hub, admin):
    terminal = Terminal(
        str(find_kubectl()), "--kubeconfig", str(admin.kubeconfig), "--context", "local", "-n", NAMESPACE, "exec", "-it", "box", "--", "sh",
        environment={},
    )  # fmt: skip
    await terminal.start()
    await terminal.expect(b"# ")
    terminal.type(b"echo before the kill\n")
    await terminal.expect(b"\nbefore the kill")
    id_ = (await admin.must("recordings", "list", "-o", "name")).split()[0]

    async def is_stored() -> bool:
        # A session that runs still is played up to what is stored: at most a second behind.
        return "\nbefore the kill" in (await admin.herdsman("recordings", "play", id_, "--no-timing")).out

    await eventually(is_stored, 5)
    hub.kill("auth_proxy")
    assert await terminal.end() != 0
    await eventually(lambda: answers(hub), 30)
    played = await admin.herdsman("recordings", "play", id_, "--no-timing")
    assert played.code == 0, played.err
    assert "\nbefore the kill" in played.out
    assert "unfinished" in played.err
    verified = await admin.herdsman("recordings", "verify", id_)
    assert verified.code == 1
    assert "is unfinished" in verified.err


async def answers(hub) -> bool:
    try:
        return (await hub.get("/readyz"))[0] == 200
    except (OSError, ValueError):
        return False
