"""What a program is to the supervisor, and the ways to know that one is ready. The table of the hub's programs is in `hub_programs`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Ready = Callable[[], Awaitable[str]]
"""Returns "" when the program is ready, else a few words on what it is waiting for."""

_PROBE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Program:
    """One child. At the stop, the programs of a stage end together, and a stage only when all later ones are gone."""

    name: str
    argv: tuple[str, ...]
    stage: int
    ready: Ready | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    ready_timeout_s: float = 60.0
    stop_timeout_s: float = 8.0
    death_signal: signal.Signals = signal.SIGKILL
    """What the kernel sends when `up` is killed. SIGTERM only for one that has children of its own to end."""
    stdout_file: Path | None = None
    """Where its output goes, emptied at each start, when somebody reads it; else the log gets it."""
    before_start: Callable[[], object] = lambda: None
    """Called before each start, also before a restart, in a thread. Raises OSError when it can't be started now."""
    is_final: Callable[[int], bool] = lambda _code: False
    """Whether an exit code means that its work is over: then it is not started again."""


def tcp_banner(host: str, port: int, expected: bytes) -> Ready:
    """Ready when the port greets with `expected`, as nats-server does with INFO."""

    async def check() -> str:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    greeting = await reader.read(len(expected))
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
        except (OSError, TimeoutError):
            return f"port {port} does not answer"
        return "" if greeting == expected else f"port {port} belongs to something else"

    return check


def health_endpoint(address_file: Path) -> Ready:
    """Ready when the service wrote its health address into the file and answers 200 on /readyz."""

    async def check() -> str:
        address = _text_of(address_file).strip()
        host, _, port = address.removeprefix("http://").rpartition(":")
        if not port.isdigit():
            return "starting"
        return await _get(host.strip("[]"), int(port), "/readyz", None, "")

    return check


def public_endpoint(host: str, port: int, server_name: str, ca_file: Path) -> Ready:
    """Ready when the front door answers 200 on /readyz over TLS that our own CA vouches for."""
    context: ssl.SSLContext | None = None
    read = b""

    async def check() -> str:
        nonlocal context, read
        present = await asyncio.to_thread(ca_file.read_bytes)
        if context is None or present != read:  # the authority may have been replaced since
            context, read = ssl.create_default_context(cadata=present.decode("ascii")), present
        return await _get(host, port, "/readyz", context, server_name)

    return check


def json_line(file: Path) -> Ready:
    """Ready when the first line of its output is a JSON object."""

    async def check() -> str:
        return "" if read_json_line(file) is not None else "starting"

    return check


def read_json_line(file: Path) -> dict[str, Any] | None:
    """The JSON object in the first line of a file, once the line is complete."""
    first, newline, _ = _text_of(file).partition("\n")
    if not newline:
        return None
    try:
        document = json.loads(first)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _text_of(file: Path) -> str:
    """What a child has written so far; nothing while the file is not there."""
    try:
        return file.read_text(errors="replace")
    except FileNotFoundError:
        return ""


async def _get(host: str, port: int, path: str, context: ssl.SSLContext | None, server_name: str) -> str:
    """Whether a GET gives 200: "" if so, else what is wrong."""
    status, words = await http_get(host, port, path, context, server_name)
    return "" if status == 200 else words[:200]


async def http_get(
    host: str, port: int, path: str, context: ssl.SSLContext | None = None, server_name: str = ""
) -> tuple[int, str]:
    """One HTTP/1.1 GET: the status and the body on one line; 0 and what is wrong when there is no answer."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname=server_name if context else None
            )
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {server_name or host}\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read(4096)
    except ssl.SSLCertVerificationError as error:
        return 0, f"its certificate is refused: {error.verify_message}"
    except (OSError, TimeoutError, ssl.SSLError):
        return 0, f"{host}:{port} does not answer"
    finally:
        if writer is not None:
            writer.transport.abort()
    status_line, _, rest = answer.decode(errors="replace").partition("\r\n")
    words = status_line.split(" ", 2)
    status = int(words[1]) if len(words) >= 2 and words[1].isdigit() else 0
    body = rest.partition("\r\n\r\n")[2].strip()
    return status, " ".join(body.split()) or status_line or "an empty answer"
