"""A real Active Directory domain controller (Samba) in a folder and a network of its own: it wants the standard ports."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from integration.tunnel import network
from libs.common.crypto import ca
from libs.common.resources.providers import DirectorySettings

BASE = "DC=corp,DC=example"
ADMIN_PASSWORD = "Passw0rd.Admin"  # noqa: S105 - of a domain that lives for one test
SERVICE, SERVICE_PASSWORD = "reader", "Passw0rd.Reader"


def why_not() -> str:
    """Why no controller can be started here; "" = it can."""
    if shutil.which("samba-tool") is None or not Path("/usr/sbin/samba").exists():
        return "samba is missing: apt-get install samba samba-ad-dc samba-ad-provision samba-dsdb-modules winbind"
    return network.why_not()


@dataclass
class Controller:
    """`host` is its address; entries are added to the database that it serves."""

    folder: Path
    away: network.Elsewhere
    host: str
    ca: str
    process: asyncio.subprocess.Process | None = None

    @property
    def ldaps(self) -> str:
        return f"ldaps://{self.host}"

    def settings(self, **more: object) -> DirectorySettings:
        """How a provider reaches it, with the service account."""
        return DirectorySettings.model_validate({
            "servers": [self.ldaps], "ca": self.ca, "bind_dn": f"{SERVICE}@corp.example", "bind_password": SERVICE_PASSWORD,
            "user_base": BASE, "login_domain": "corp.example", "timeout_seconds": 5, "deadline_seconds": 15, **more,
        })  # fmt: skip

    def tool(self, *arguments: str) -> None:
        """`samba-tool` on its database."""
        done = subprocess.run(
            ["samba-tool", *arguments, "-H", f"{self.folder}/dc/private/sam.ldb"], capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()

    def user(self, name: str, password: str, *options: str) -> None:
        self.tool("user", "create", name, password, *options)

    def group(self, name: str, members: Iterable[str]) -> None:
        self.tool("group", "add", name)
        self.tool("group", "addmembers", name, ",".join(members))

    async def start(self) -> None:
        options = {
            "server services": "ldap,rpc", "tls certfile": "server.crt", "tls keyfile": "server.key", "tls cafile": "ca.crt",
            "log file": "samba.log", "pid directory": "run", "ncalrpc dir": "run/ncalrpc", "state directory": "dc/state",
        }  # fmt: skip
        files = {"certfile", "keyfile", "cafile", "log file", "pid directory", "ncalrpc dir", "state directory"}
        arguments = [
            f"--option={name}={self.folder / value if name.removeprefix('tls ') in files else value}"
            for name, value in options.items()
        ]
        self.process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", self.away.name, "/usr/sbin/samba", "-i", "-M", "single", "-s", str(self.folder / "dc/etc/smb.conf"),
            *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(self.host, 636)
                writer.close()
                return
            assert self.process.returncode is None, (self.folder / "samba.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the controller does not listen"
            await asyncio.sleep(0.2)

    async def stop(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            try:
                async with asyncio.timeout(10):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
            self.process = None


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Controller]:
    """A domain `corp.example` with the service account in it; not started, so that a test fills it first."""
    async with network.elsewhere() as away:
        host = away.here.rpartition(".")[0] + ".2"
        now = datetime.now(UTC)
        authority = ca.generate_ca("domain", now)
        pair = ca.issue_server(authority, [host], now)
        for name, content in (
            ("ca.crt", authority.certificate),
            ("server.crt", pair.certificate),
            ("server.key", pair.key),
        ):
            (folder / name).write_bytes(content)
            (folder / name).chmod(0o600)
        (folder / "run").mkdir()
        done = await asyncio.to_thread(
            subprocess.run,
            [
                "samba-tool", "domain", "provision", "--server-role=dc", "--dns-backend=NONE", f"--targetdir={folder}/dc",
                "--realm=CORP.EXAMPLE", "--domain=CORP", f"--adminpass={ADMIN_PASSWORD}", "--host-name=dc1",
            ],
            capture_output=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        made = Controller(folder, away, host, authority.certificate.decode())
        made.user(SERVICE, SERVICE_PASSWORD)
        try:
            yield made
        finally:
            await made.stop()
