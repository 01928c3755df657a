"""A cluster outside the hub's folder and its agent as a process, for tests that do something to the agent, its clock or the hub's disk."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from integration.harness.hub import Hub, eventually

API = "/apis/management.herdsman.dev/v1"


async def make_cluster(hub: Hub, name: str) -> str:
    """Make the Cluster and return a registration token for its agent."""
    admin = await hub.admin()
    document = {
        "apiVersion": "management.herdsman.dev/v1",
        "kind": "Cluster",
        "metadata": {"name": name},
        "spec": {"imported": {}},
    }
    made = await admin.kubectl("herdsman", "apply", "-f", "-", stdin=json.dumps(document).encode())
    assert made.code == 0, made.err
    return await issue_token(hub, name)


async def issue_token(hub: Hub, name: str) -> str:
    """A fresh registration token."""
    admin = await hub.admin()
    wish = {"apiVersion": "management.herdsman.dev/v1", "kind": "ClusterRegistration", "spec": {}}
    issued = await admin.kubectl(
        "herdsman", "create", "--raw", f"{API}/clusters/{name}/registration", "-f", "-", stdin=json.dumps(wish).encode()
    )
    assert issued.code == 0, issued.err
    return str(json.loads(issued.out)["status"]["token"])


@dataclass
class Agent:
    """`herdsman-agent run` in `folder`; its log is `folder/agent.log`."""

    hub: Hub
    folder: Path
    kubeconfig: Path
    environment: Mapping[str, str] | None = None
    ca_file: Path | None = None
    hub_url: str = ""
    """Another way to the hub than its own address."""
    process: asyncio.subprocess.Process | None = None

    async def start(self, token: str = "") -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if token:
            (self.folder / "token").write_text(token, encoding="ascii")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HERDSMAN_", "KUBERNETES_"))}
        with (self.folder / "agent.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.agent", "run", "--hub", self.hub_url or self.hub.url, "--ca-file", str(self.ca_file or self.hub.ca_file),
                "--kubeconfig", str(self.kubeconfig), "--state-dir", str(self.folder / "state"),
                "--registration-token-file", str(self.folder / "token"), "--log-format", "console",
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env={**kept, **(self.environment or {})},
            )  # fmt: skip

    @property
    def log(self) -> str:
        return (self.folder / "agent.log").read_text(encoding="utf-8", errors="replace")

    async def says(self, text: str, timeout_s: float = 30) -> None:
        async def said() -> bool:
            return text in self.log

        try:
            await eventually(said, timeout_s)
        except AssertionError:
            raise AssertionError(f"the agent did not say {text!r}:\n{self.log[-3000:]}") from None

    async def wait(self, timeout_s: float = 60) -> int:
        """Until it ends by itself; the exit code."""
        assert self.process is not None
        async with asyncio.timeout(timeout_s):
            return await self.process.wait()

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            try:
                await self.wait(15)
            finally:
                if self.process.returncode is None:
                    self.process.kill()
                    await self.process.wait()


def clock_off(offset: str) -> dict[str, str]:
    """Environment of a process whose clock is off by e.g. `-1h`; skips the test where Debian's faketime is not installed.

    The library and not the command: that one stands between us and the process, and outlives signals.
    """
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("faketime is not installed: apt install faketime")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": offset,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }


@asynccontextmanager
async def running(agent: Agent, token: str = "") -> AsyncIterator[Agent]:
    await agent.start(token)
    try:
        yield agent
    finally:
        await agent.stop()
