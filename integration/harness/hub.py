"""The whole hub as its user runs it: `herdsman up` in a folder of its own, the CLI, and kubectl, all as processes.

Nothing is reached around the public address; what a test knows of the inside is what `herdsman.json` says.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from integration.kubelab.kubectl import Answer, kubectl

BIN = Path(sys.executable).parent
PASSWORD = "correct horse battery"  # noqa: S105 - of users that live as long as one test
GIVEN = "given by the administrator"
"""What a person gets to sign in with, and must change first."""


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def run_program(
    *command: str | Path, environment: Mapping[str, str] | None = None, timeout_s: float = 60
) -> Answer:
    """A program to its end."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Answer(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


@dataclass
class Person:
    """Somebody with the CLI and kubectl: a settings folder and a kubeconfig of their own."""

    hub: Hub
    name: str
    folder: Path
    kubeconfig: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.kubeconfig = self.folder / "kubeconfig"

    async def herdsman(self, *arguments: str, timeout_s: float = 60) -> Answer:
        return await run_program(
            BIN / "herdsman", *arguments, environment={"HERDSMAN_CONFIG_DIR": str(self.folder)}, timeout_s=timeout_s
        )

    async def must(self, *arguments: str, timeout_s: float = 60) -> str:
        """As `herdsman`, and it has to work."""
        answer = await self.herdsman(*arguments, timeout_s=timeout_s)
        assert answer.code == 0, f"herdsman {' '.join(arguments)}: {answer.err}{answer.out}"
        return answer.out

    async def sign_in(self, password_file: Path) -> None:
        """Sign in and fetch a kubeconfig."""
        await self.log_in(password_file)
        await self.fetch_kubeconfig()

    async def log_in(self, password_file: Path) -> None:
        await self.must(
            "login", self.hub.url, "--ca-file", str(self.hub.ca_file), "--user", self.name, "--password-file", str(password_file)
        )  # fmt: skip

    async def choose_password(self, given: Path, chosen: Path) -> None:
        """As somebody who was given a password does: sign in with it, and change it."""
        await self.log_in(given)
        await self.must("password", "--password-file", str(given), "--new-password-file", str(chosen))

    async def fetch_kubeconfig(self) -> None:
        await self.must("kubeconfig", "--static", "--output", str(self.kubeconfig))

    async def kubectl(self, context: str, *arguments: str, **options: Any) -> Answer:
        return await kubectl(self.kubeconfig, "--context", context, *arguments, **options)

    async def sees(self, context: str, *arguments: str, **options: Any) -> str:
        """kubectl's output, and it has to work."""
        answer = await self.kubectl(context, *arguments, **options)
        assert answer.code == 0, f"kubectl {' '.join(arguments)}: {answer.err}{answer.out}"
        return answer.out


class Hub:
    """`herdsman up` in `folder`. Its output lies in `folder/up.log`."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = port or free_port()
        self.options = options
        self.process: asyncio.subprocess.Process | None = None
        self.people: dict[str, Person] = {}
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return str(self.record()["url"])

    @property
    def ca_file(self) -> Path:
        return Path(self.record()["ca_file"])

    @property
    def log(self) -> str:
        """What `herdsman up` has said so far."""
        return (self.folder / "up.log").read_text(encoding="utf-8", errors="replace")

    def record(self) -> dict[str, Any]:
        """herdsman.json."""
        return dict(json.loads((self.data / "herdsman.json").read_text(encoding="utf-8")))

    def pids(self) -> dict[str, int]:
        return dict(self.record()["pids"])

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_failure: object) -> None:
        await self.stop()

    async def start(self, timeout_s: float = 60) -> float:
        """Start, wait until the public /readyz says so; returns the seconds it took."""
        began = time.monotonic()
        with (self.folder / "up.log").open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                str(BIN / "herdsman"), "up", "--data-dir", str(self.data), "--port", str(self.port), *self.options,
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        await self.wait_ready(timeout_s)
        return time.monotonic() - began

    async def wait_ready(self, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            assert self.process is not None
            assert self.process.returncode is None, f"herdsman up ended:\n{self.log}"
            try:
                if (await self.get("/readyz"))[0] == 200:
                    return
            except (OSError, ValueError):
                pass  # not listening yet; the deadline below says when that is a fault
            assert time.monotonic() < deadline, f"not ready in {timeout_s} s:\n{self.log}"
            await asyncio.sleep(0.05)

    async def stop(self, timeout_s: float = 60) -> int:
        """Ctrl-C, and wait; returns the exit code."""
        if self.process is None:
            return 0
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(timeout_s):
                code = await self.process.wait()
        finally:
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
            self.process = None
        return code

    def kill(self, name: str) -> int:
        """kill -9 of one of its processes, which must run now; returns the pid."""
        pid = self.pids()[name]
        os.kill(pid, signal.SIGKILL)
        return pid

    async def admin(self) -> Person:
        """The administrator, signed in."""
        record = self.record()
        return await self._person(str(record["admin_user"]), Path(record["admin_password_file"]))

    async def person(self, name: str) -> Person:
        """A user that the administrator makes here, signed in."""
        if name not in self.people:
            given, password = self.folder / f"{name}.given", self.folder / f"{name}.password"
            given.write_text(GIVEN, encoding="ascii")
            password.write_text(PASSWORD, encoding="ascii")
            admin = await self.admin()
            await admin.must("user", "create", name, "--password-file", str(given))
            person = Person(self, name, self.folder / "people" / name)
            await person.choose_password(given, password)
            await person.fetch_kubeconfig()
            self.people[name] = person
        return await self._person(name, self.folder / f"{name}.password")

    async def _person(self, name: str, password_file: Path) -> Person:
        if name not in self.people:
            person = Person(self, name, self.folder / "people" / name)
            await person.sign_in(password_file)
            self.people[name] = person
        return self.people[name]

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    async def get(self, path: str, token: str = "") -> tuple[int, bytes]:
        """A GET on the public address over a fresh connection: status and body."""
        headers = f"Authorization: Bearer {token}\r\n" if token else ""
        answer = await self.raw(f"GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{headers}\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), body

    async def raw(self, request: bytes, timeout_s: float = 20) -> bytes:
        """Bytes to the public address, and all that comes back until it closes."""
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=self.tls(), server_hostname="localhost"
            )
            try:
                writer.write(request)
                await writer.drain()
                return await reader.read(-1)
            finally:
                writer.close()


async def eventually(check: Any, timeout_s: float = 10, every_s: float = 0.1) -> Any:
    """The first true answer of an async `check`, within `timeout_s`; fails with the last false one."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = await check()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"did not come true in {timeout_s} s; last answer: {answer!r}"
        await asyncio.sleep(every_s)
