"""A slow line in front of a port: a TCP proxy that passes only so many bytes a second each way, and makes the faster side wait."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType

_BLOCK = 32 * 1024


class SlowLine:
    """Listens on loopback while it is entered. Nothing is stored: who sends more than passes is stopped by its own full buffers."""

    def __init__(self, target_port: int, bytes_per_s: int) -> None:
        self._target_port = target_port
        self._bytes_per_s = bytes_per_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> SlowLine:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, limit=_BLOCK)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(reader, writer), name="slow-line")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port, limit=_BLOCK)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, far_writer), name="slow-line-out")
                tasks.create_task(self._pump(far_reader, writer), name="slow-line-back")
        finally:
            writer.close()
            far_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Each block is due when those before it, at the line's rate, are through."""
        loop = asyncio.get_running_loop()
        writer.transport.set_write_buffer_limits(high=_BLOCK)
        due = loop.time()
        with contextlib.suppress(ConnectionError):
            while block := await reader.read(_BLOCK):
                writer.write(block)
                await writer.drain()
                due = max(due, loop.time() - 0.1) + len(block) / self._bytes_per_s
                await asyncio.sleep(max(0.0, due - loop.time()))
            writer.write_eof()
