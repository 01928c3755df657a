"""A second network on this machine: a namespace behind a pair of virtual cards, whose wire can be cut without a word to anybody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

_CUT = """table inet cut {
 chain in { type filter hook input priority 0; policy drop; iifname "lo" accept; }
 chain out { type filter hook output priority 0; policy drop; oifname "lo" accept; }
}
"""


def why_not() -> str:
    """Why no namespace can be made here; "" = it can."""
    missing = [name for name in ("ip", "nft") if shutil.which(name) is None]
    if missing:
        return f"{missing[0]} is missing"
    return "" if os.geteuid() == 0 else "network namespaces need root"


async def _run(*argv: str, feed: str = "") -> None:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate(feed.encode())
    assert process.returncode == 0, f"{' '.join(argv)}: {out.decode()}"


@dataclass
class Elsewhere:
    """`here` is this side's address on the wire."""

    name: str
    here: str

    async def cut(self) -> None:
        """From now on every packet is lost, both ways, and nobody is told."""
        await _run("ip", "netns", "exec", self.name, "nft", "-f", "-", feed=_CUT)

    async def mend(self) -> None:
        await _run("ip", "netns", "exec", self.name, "nft", "delete", "table", "inet", "cut")


@contextlib.asynccontextmanager
async def elsewhere() -> AsyncIterator[Elsewhere]:
    name = f"hm{secrets.token_hex(3)}"
    net = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(256)}"
    await _run("ip", "netns", "add", name)
    try:
        await _run("ip", "link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        await _run("ip", "addr", "add", f"{net}.1/30", "dev", f"{name}a")
        await _run("ip", "link", "set", f"{name}a", "up")
        await _run("ip", "-n", name, "addr", "add", f"{net}.2/30", "dev", f"{name}b")
        await _run("ip", "-n", name, "link", "set", f"{name}b", "up")
        await _run("ip", "-n", name, "link", "set", "lo", "up")
        yield Elsewhere(name, f"{net}.1")
    finally:
        await _run("ip", "netns", "del", name)


@dataclass
class AgentElsewhere:
    """An agent's process; `connected` and `carrier` are what it said last."""

    connected: int = 0
    carrier: str = ""
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def reaches(self, connected: int, timeout_s: float) -> float:
        """Wait until it has so many connections (0: none). Returns how long it took."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with asyncio.timeout(timeout_s):
            while self.connected < connected if connected else self.connected:
                self.heard.clear()
                await self.heard.wait()
        return loop.time() - started


@contextlib.asynccontextmanager
async def agent(namespace: str, settings: dict[str, str]) -> AsyncIterator[AgentElsewhere]:
    prefix = ("ip", "netns", "exec", namespace) if namespace else ()
    process = await asyncio.create_subprocess_exec(
        *prefix, sys.executable, "-m", "integration.tunnel.agent",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(settings).encode() + b"\n")
    made = AgentElsewhere()

    async def follow(stdout: asyncio.StreamReader) -> None:
        while line := await stdout.readline():
            words = line.decode().split(" ")
            if words[0] == "connected":
                made.connected, made.carrier = int(words[1]), words[2].strip()
                made.heard.set()

    following = asyncio.create_task(follow(process.stdout), name="agent's words")
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await following
