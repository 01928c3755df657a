"""A program in a terminal of its own: typed to, resized, and read to its end, as a person's kubectl is."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Mapping


class Terminal:
    """`output` is all that the program has written so far."""

    def __init__(self, *command: str, environment: Mapping[str, str], size: tuple[int, int] = (80, 24)) -> None:
        self.command = command
        self.environment = dict(environment)
        self.output = b""
        self.process: asyncio.subprocess.Process | None = None
        self._ours, self._theirs = os.openpty()
        self._came = asyncio.Event()
        self._looked = 0
        self._set_size(size)

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            "setsid", "--ctty", *self.command, stdin=self._theirs, stdout=self._theirs, stderr=self._theirs,
            env={**os.environ, **self.environment},
        )  # fmt: skip
        os.close(self._theirs)
        os.set_blocking(self._ours, False)
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    async def expect(self, text: bytes, timeout_s: float = 20.0) -> None:
        """Wait until `text` stands in what came since the last call."""
        try:
            async with asyncio.timeout(timeout_s):
                while text not in self.output[self._looked :]:
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            raise AssertionError(f"{text!r} did not come: {self.output!r}") from None
        self._looked = self.output.index(text, self._looked) + len(text)

    def type(self, text: bytes) -> None:
        os.write(self._ours, text)

    def resize(self, columns: int, rows: int) -> None:
        self._set_size((columns, rows))

    async def end(self, timeout_s: float = 30.0) -> int:
        """The exit code."""
        assert self.process is not None
        try:
            async with asyncio.timeout(timeout_s):
                return await self.process.wait()
        finally:
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
            self._read()
            asyncio.get_running_loop().remove_reader(self._ours)
            os.close(self._ours)

    def _read(self) -> None:
        # EIO: the program has closed the terminal.
        with contextlib.suppress(BlockingIOError, OSError):
            while data := os.read(self._ours, 65536):
                self.output += data
                self._came.set()

    def _set_size(self, size: tuple[int, int]) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
