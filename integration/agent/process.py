"""The agent as its users run it: a process of its own, given a kubeconfig, a CA and a token; and its log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from integration.agent.looking import eventually


class AgentProcess:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.token_file = folder / "token"
        self._process: asyncio.subprocess.Process | None = None
        self._log = folder / "agent.log"

    async def start(
        self, hub_url: str, ca_file: Path, kubeconfig: Path, token: str = "", *, state: Path | None = None
    ) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if token:
            self.token_file.write_text(token)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HERDSMAN_", "KUBERNETES_"))}
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.agent", "run", "--hub", hub_url, "--ca-file", str(ca_file), "--kubeconfig", str(kubeconfig),
                "--state-dir", str(state or self.state), "--registration-token-file", str(self.token_file), "--log-format", "json",
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def kill(self) -> None:
        """As a crash would."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def terminate(self) -> int:
        """As its supervisor would; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await self.wait(10)

    async def wait(self, timeout_s: float = 60.0) -> int:
        assert self._process is not None
        async with asyncio.timeout(timeout_s):
            return await self._process.wait()

    async def end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self._log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def said(self, event: str, **fields: str) -> bool:
        """Whether the log has a line of this event whose fields contain these texts."""
        return any(
            line.get("event") == event and all(text in str(line.get(key, "")) for key, text in fields.items())
            for line in self.lines()
        )

    async def says(self, event: str, timeout_s: float = 30.0, **fields: str) -> None:
        try:
            await eventually(lambda: self.said(event, **fields), timeout_s)
        except AssertionError:
            raise AssertionError(
                f"the agent did not say {event} {fields}; its log:\n{self._log.read_text()[-4000:]}"
            ) from None

    def resident_mb(self) -> float:
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024
