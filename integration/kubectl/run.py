"""How one kubectl is run as somebody, against any hub. Which ones there are, `integration.harness.kubectls` knows."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


@dataclass(slots=True)
class Kubectl:
    """One kubectl with a home of its own: it shares no cache and no settings with the machine's."""

    binary: Path
    url: str
    home: Path
    ca_file: Path
    minor: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    token: Callable[[str], str] = "as-{}".format
    """The token of a person. By default what the stand-in front door takes."""

    async def find_minor(self) -> int:
        """Its minor version, from what it says itself."""
        said = await self.run("version", "--client", "-o", "json")
        self.minor = int("".join(c for c in json.loads(said.out)["clientVersion"]["minor"] if c.isdigit()))
        return self.minor

    async def start(self, *arguments: str, by: str = "root") -> asyncio.subprocess.Process:
        """The process, with its three pipes; end it yourself."""
        config = self.home / f"{by}.kubeconfig"
        if not config.exists():
            config.write_text(_CONFIG.format(url=self.url, token=self.token(by), ca=self.ca_file), encoding="utf-8")
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.home),
            "KUBECONFIG": str(config),
            **self.environment,
        }
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            str(self.binary), *arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=environment
        )

    async def run(self, *arguments: str, by: str = "root", stdin: str = "", timeout_s: float = 40) -> Result:
        """Run to the end; a kubectl that hangs is ended and fails the test."""
        process = await self.start(*arguments, by=by)
        try:
            async with asyncio.timeout(timeout_s):
                out, err = await process.communicate(stdin.encode())
        except TimeoutError:
            process.kill()
            await process.communicate()
            raise
        return Result(process.returncode or 0, out.decode(), err.decode())

    async def ok(self, *arguments: str, by: str = "root", stdin: str = "") -> str:
        """What it prints; a failure is shown with all it said."""
        result = await self.run(*arguments, by=by, stdin=stdin)
        assert result.code == 0, f"kubectl {' '.join(arguments)} → {result.code}\n{result.out}\n{result.err}"
        return result.out

    async def fails(self, *arguments: str, by: str = "root", stdin: str = "") -> str:
        """What it complains of; success is a failure."""
        result = await self.run(*arguments, by=by, stdin=stdin)
        assert result.code != 0, f"kubectl {' '.join(arguments)} should have failed\n{result.out}\n{result.err}"
        return result.err


_CONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: hub, cluster: {{server: "{url}", certificate-authority: "{ca}"}}}}]
users: [{{name: me, user: {{token: "{token}"}}}}]
contexts: [{{name: hub, context: {{cluster: hub, user: me}}}}]
current-context: hub
"""
