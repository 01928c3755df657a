"""One worker process as its parent sees it: started with its slot's sockets, watched by a pidfd, asked over its own health port.

The child dies with its parent. It says its health address into a pipe, so no file is left behind by whoever is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence

from libs.common.processes import dies_with_parent
from services.auth_proxy.inherited import COUNT, FIRST, PID

_PROBE_S = 2.0
_ABOVE = 64
_PIPE_AT = 60


class WorkerProcess:
    """`exited` is set with the exit code, negative for a signal."""

    def __init__(self, number: int, arguments: Sequence[str], sockets: Sequence[socket.socket]) -> None:
        self.number = number
        self.started_at = time.monotonic()
        self.was_ready = False
        self._address = ""
        self._reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self.pid = _fork(number, arguments, sockets, writing)
        finally:
            os.close(writing)
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = loop.create_future()
        self._pidfd = os.pidfd_open(self.pid)
        loop.add_reader(self._pidfd, self._reap)

    def send(self, number: signal.Signals) -> None:
        """A signal to this very process; nothing when it is gone."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def end(self, number: signal.Signals, patience_s: float) -> None:
        """Ask it to go, wait, insist."""
        self.send(number)
        await asyncio.wait([self.exited], timeout=patience_s)
        if not self.exited.done():
            self.send(signal.SIGKILL)
            await self.exited

    async def ask(self, path: str) -> tuple[int, bytes]:
        """A GET on its health port: status and body; status 0 when there is no answer."""
        address = self._find_address()
        if not address or self.exited.done():
            return 0, b"starting"
        host, _, port = address.removeprefix("http://").rpartition(":")
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(_PROBE_S):
                reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                answer = await reader.read()
        except (OSError, TimeoutError, ValueError):
            return 0, b"no answer"
        finally:
            if writer is not None:
                writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        words = head.split(b" ", 2)
        return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), body

    async def is_ready(self) -> bool:
        status, _ = await self.ask("/readyz")
        self.was_ready = self.was_ready or status == 200
        return status == 200

    def _find_address(self) -> str:
        if self._reading >= 0 and not self._address:
            with contextlib.suppress(BlockingIOError):
                self._address = os.read(self._reading, 256).decode("ascii", "replace").strip()
        return self._address

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        _, status = os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        os.close(self._reading)
        self._reading = -1
        self.exited.set_result(os.waitstatus_to_exitcode(status))


def _fork(number: int, arguments: Sequence[str], sockets: Sequence[socket.socket], pipe: int) -> int:
    environment = _environment(number, len(sockets))
    prepare = dies_with_parent(signal.SIGKILL)
    pid = os.fork()
    if pid:
        return pid
    # In the child, between fork and exec: nothing but system calls, and no way back into the parent's code.
    try:
        prepare()
        high = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, _ABOVE) for sock in sockets]
        high_pipe = fcntl.fcntl(pipe, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
        for index, descriptor in enumerate(high):
            os.dup2(descriptor, FIRST + index, inheritable=True)
        os.dup2(high_pipe, _PIPE_AT, inheritable=True)
        environment[PID] = str(os.getpid())
        os.execve(sys.executable, [sys.executable, *arguments], environment)  # noqa: S606 - ourselves
    finally:
        os._exit(127)


def _environment(number: int, sockets: int, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    return {
        **base,
        COUNT: str(sockets),
        "HERDSMAN_WORKER": str(number),
        "HERDSMAN_HEALTH_LISTEN": "127.0.0.1:0",
        "HERDSMAN_HEALTH_FILE": f"/dev/fd/{_PIPE_AT}",
    }
