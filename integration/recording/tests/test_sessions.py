"""Sessions of the real kubectl, recorded on their way and read back."""

from __future__ import annotations

import pytest

from integration.harness.hub import eventually
from integration.recording.capture import CARRIERS, record_all, typed_session
from libs.common.recording.events import ERROR, RESIZE, STDERR, STDIN, STDOUT
from libs.common.resources.audit import AuditPolicy

FULL = True
pytestmark = [pytest.mark.kubelab, pytest.mark.full, pytest.mark.timeout(300)]
BOTH = pytest.mark.parametrize("carrier", CARRIERS)


async def ended(way):
    """The last recording, when its end is stored."""

    async def look():
        ends = [part.kind async for part in way.reader().read_ends(None)]
        return ends[-1:] == ["end"]

    await eventually(look)
    return await way.last()


async def test_without_a_policy_nothing_is_stored(way):
    before = len(await way.recordings())
    answer = await way.kubectl("websocket", "exec", "web", "--", "echo", "x")
    assert (answer.code, answer.out) == (0, "x\n")
    assert len(await way.recordings()) == before


@BOTH
async def test_a_terminal_session_is_read_back_as_it_was_seen(way, carrier):
    await record_all(way.door)
    terminal = way.terminal(carrier, "exec", "-it", "web", "--", "sh")
    assert await typed_session(terminal) == 3
    recorded = await ended(way)
    # kubectl adds one line of its own behind the session's last.
    seen, _, _ = terminal.output.partition(b"command terminated with exit code")
    assert recorded.on(STDOUT) == seen
    assert [e.data for e in recorded.events if e.channel == RESIZE] == [b"80x24", b"100x30"]
    assert recorded.on(STDIN) == b""
    assert b"hunter2-typed" not in b"".join(e.data for e in recorded.events)
    outcome, facts = recorded.outcome, recorded.facts
    assert (outcome.exit_code, outcome.http_status) == (3, 101)
    assert outcome.protocol == {"websocket": "v5.channel.k8s.io", "spdy": "v4.channel.k8s.io"}[carrier]
    assert outcome.input_bytes > len(b"hunter2-typed")
    assert outcome.output_bytes == len(seen)
    assert (facts.user, facts.cluster, facts.namespace, facts.pod, facts.action) == (
        "ada",
        "prod",
        "default",
        "web",
        "exec",
    )
    assert (facts.command, facts.container, facts.tty, facts.stdin) == (["sh"], "web", True, True)
    assert facts.client == "127.0.0.1"


@BOTH
async def test_input_is_there_where_the_policy_says_so(way, carrier):
    await record_all(way.door, record_input=True)
    answer = await way.kubectl(carrier, "exec", "-i", "web", "--", "cat", stdin=b"what goes in\n" * 5000)
    assert answer.code == 0
    recorded = await ended(way)
    assert recorded.on(STDIN) == recorded.on(STDOUT) == b"what goes in\n" * 5000
    assert recorded.facts.input_recorded


@BOTH
async def test_outputs_and_exit_code_are_told_apart(way, carrier):
    await record_all(way.door)
    answer = await way.kubectl(carrier, "exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert answer.code == 7
    recorded = await ended(way)
    assert (recorded.on(STDOUT), recorded.on(STDERR)) == (b"out\n", b"err\n")
    assert recorded.outcome.exit_code == 7
    assert recorded.on(ERROR)
    assert recorded.facts.command == ["sh", "-c", "echo out; echo err >&2; exit 7"]


@BOTH
async def test_megabytes_are_recorded_whole_and_arrive_whole(way, carrier):
    await record_all(way.door)
    answer = await way.kubectl(carrier, "exec", "web", "--", "sh", "-c", "i=0; while [ $i -lt 100000 ]; do echo line $i; i=$((i+1)); done")  # fmt: skip
    assert answer.code == 0
    assert answer.out.count("\n") == 100000
    recorded = await ended(way)
    assert recorded.on(STDOUT) == answer.out.encode()


@BOTH
async def test_an_attached_session_is_recorded(way, carrier):
    await record_all(way.door)
    await way.kubectl(
        carrier, "run", f"talk-{carrier}", "--image-pull-policy=Never", "--restart=Never", "--image=" + image(), "--",
        "sh", "-c", "sleep 5; echo from inside",
    )  # fmt: skip
    await way.kubectl(carrier, "wait", "--for=condition=Ready", f"pod/talk-{carrier}", "--timeout=60s", timeout_s=90)
    answer = await way.kubectl(carrier, "attach", f"talk-{carrier}")
    assert "from inside" in answer.out
    recorded = await ended(way)
    assert (recorded.facts.action, recorded.facts.pod) == ("attach", f"talk-{carrier}")
    assert b"from inside" in recorded.on(STDOUT)


async def test_a_policy_that_is_taken_away_counts_from_the_next_session_on(way):
    await record_all(way.door)
    await way.kubectl("websocket", "exec", "web", "--", "echo", "x")
    await ended(way)
    before = len(await way.recordings())
    await way.door.remove(AuditPolicy, "record")
    await way.kubectl("websocket", "exec", "web", "--", "echo", "x")
    assert len(await way.recordings()) == before


async def test_a_session_that_the_cluster_refuses_is_a_recording_that_says_so(way):
    await record_all(way.door)
    target = "/k8s/clusters/prod/api/v1/namespaces/default/pods/nope/exec?command=true&stdout=true"
    head = f"POST {target} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {way.token}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
    reply = await way.door.talk(head.encode())
    assert reply.status == 404
    recorded = await ended(way)
    assert (recorded.facts.pod, recorded.facts.command) == ("nope", ["true"])
    assert (recorded.outcome.http_status, recorded.outcome.exit_code, recorded.events) == (404, None, [])


def image():
    from integration.kubelab.images import BUSYBOX_IMAGE

    return BUSYBOX_IMAGE


@BOTH
async def test_without_the_bus_a_session_is_refused_before_it_begins(way, carrier):
    await record_all(way.door)
    way.server.kill()
    try:
        await eventually(lambda: _is_down(way))
        answer = await way.kubectl(carrier, "exec", "web", "--", "touch", "/tmp/ran")
        assert answer.code == 1
        assert "this session has to be recorded" in answer.err
    finally:
        way.server.start()
    await way.door.remove(AuditPolicy, "record")
    assert (await way.kubectl(carrier, "exec", "web", "--", "ls", "/tmp/ran")).code != 0


@BOTH
async def test_the_bus_dies_within_a_session_which_ends_with_a_reason_and_stays_unfinished(way, carrier):
    await record_all(way.door)
    terminal = way.terminal(carrier, "exec", "-it", "web", "--", "sh")
    await terminal.start()
    await terminal.expect(b"# ")
    terminal.type(b"echo before\n")
    await terminal.expect(b"\nbefore")

    async def stored():
        recorded = await way.last()
        return b"\nbefore" in recorded.on(STDOUT)

    await eventually(stored)
    way.server.kill()
    try:
        terminal.type(b"echo after\n")
        code = await terminal.end(timeout_s=30)
        assert code != 0
        assert b"can't be recorded any more" in terminal.output
    finally:
        way.server.start()
    recorded = await eventually(lambda: readable(way))
    assert recorded.outcome is None
    assert b"\nbefore" in recorded.on(STDOUT)


async def _is_down(way):
    return not way.bus.connected


async def readable(way):
    try:
        return await way.last()
    except Exception as exc:  # noqa: BLE001 - the bus may not be back yet; eventually's deadline says when that is a fault
        print(exc)
        return None
