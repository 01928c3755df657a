"""Make the captures anew: `python -m integration.recording.capture tests/recording/captures` (needs kubelab's full cluster).

kubectl talks to a real pod through the front door; where a recorder would sit, a tap writes down the bytes.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import uvloop

from integration.kubelab.cluster import Cluster
from integration.kubelab.images import BUSYBOX_IMAGE
from integration.kubelab.kubectl import find_kubectl, kubectl
from integration.proxy.tests.conftest import api_server, write_kubeconfig
from integration.recording.captures import Capture
from integration.recording.terminal import Terminal
from libs.common.recording.model import Facts
from libs.common.relay.decision import Relay
from libs.common.relay.head import ResponseHead
from services.auth_proxy.recording import Recorder
from tests.auth_proxy.door import Door, open_door

TYPED = "stty -echo; echo ready; read secret; stty echo; echo read ${#secret}; stty size; exit 3\n"
CARRIERS = {"websocket": "true", "spdy": "false"}


class DumpTap:
    def __init__(self, capture: Capture) -> None:
        self._capture = capture

    def request_bytes(self, data: bytes) -> None:
        if data:
            self._capture.chunks.append((True, data))

    def response_head(self, head: ResponseHead) -> None:
        names = (b"upgrade", b"sec-websocket-protocol", b"x-stream-protocol-version")
        self._capture.head |= {name.decode(): head.value(name).decode() for name in names}

    def response_bytes(self, data: bytes) -> None:
        self._capture.chunks.append((False, data))


async def typed_session(terminal: Terminal) -> int:
    """The session of the terminal captures, and of the integration tests: a secret without echo, a resize, exit code 3."""
    await terminal.start()
    await terminal.expect(b"# ")
    terminal.type(TYPED.encode())
    await terminal.expect(b"\nready")
    terminal.resize(100, 30)
    terminal.type(b"hunter2-typed\n")
    await terminal.expect(b"read 13")
    return await terminal.end()


async def main(folder: Path) -> None:
    captures: list[Capture] = []

    def wrap(self: Recorder, relay: Relay, facts: Facts) -> Relay:
        del self, facts
        captures.append(Capture())
        return replace(relay, tap=DumpTap(captures[-1]))

    Recorder.wrap = wrap  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(prefix="capture-") as name:
        temporary = Path(name)
        cluster = await Cluster.up("prod", temporary / "cluster", full=True)
        try:
            await make_pod(cluster)
            (temporary / "door").mkdir()
            async with open_door(temporary / "door") as door:
                token = await door.member("ada", "prod")
                await record_all(door)
                address = api_server(cluster)
                async with door.agent("prod", lambda: address, b"", idle=4):
                    config = write_kubeconfig(temporary / "kubeconfig", door, token)
                    for carrier, flag in CARRIERS.items():
                        environment = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": flag}
                        for kind, arguments, stdin in PLAIN:
                            captures.clear()
                            answer = await kubectl(config, *arguments, stdin=stdin, environment=environment)
                            sys.stderr.write(f"{carrier} {kind}: exit {answer.code}\n")
                            captures[-1].write(folder / f"{carrier}-{kind}.capture")
                        captures.clear()
                        terminal = Terminal(
                            str(find_kubectl()),
                            f"--kubeconfig={config}",
                            "exec",
                            "-it",
                            "web",
                            "--",
                            "sh",
                            environment=environment,
                        )
                        sys.stderr.write(f"{carrier} terminal: exit {await typed_session(terminal)}\n")
                        captures[-1].write(folder / f"{carrier}-terminal.capture")
        finally:
            await cluster.down(delete=True)


PLAIN = (
    ("plain", ("exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7"), b""),
    ("stdin", ("exec", "-i", "web", "--", "cat"), b"".join(b"line %d of what goes in\n" % n for n in range(900))),
)


async def make_pod(cluster: Cluster) -> None:
    made = await kubectl(
        cluster.kubeconfig, "run", "web", f"--image={BUSYBOX_IMAGE}", "--image-pull-policy=Never", "--", "sleep", "3600"
    )
    assert made.code == 0 or "already exists" in made.err, made.err
    bound = await kubectl(
        cluster.kubeconfig, "create", "clusterrolebinding", "herdsman:cluster-owner", "--clusterrole=cluster-admin",
        "--group=herdsman:cluster:prod:cluster-owner",
    )  # fmt: skip
    assert bound.code == 0 or "already exists" in bound.err, bound.err
    ready = await kubectl(
        cluster.kubeconfig, "wait", "--for=condition=Ready", "pod/web", "--timeout=90s", timeout_s=100
    )
    assert ready.code == 0, ready.err


async def record_all(door: Door, *, record_input: bool = False) -> None:
    """A policy that records every session."""
    from libs.common.resources.audit import AuditPolicy, AuditPolicySpec, AuditRule
    from tests.auth_proxy.door import meta

    rule = AuditRule(record_sessions=True, record_input=record_input)
    await door.put(AuditPolicy(metadata=meta("record"), spec=AuditPolicySpec(rules=[rule])))


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
