"""One nginx or HAProxy on loopback, in front of a hub on loopback, from one of the guide's files with the addresses put in."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from integration.harness.hub import eventually, free_port

CONFIGURATIONS = Path(__file__).resolve().parents[2] / "docs" / "guides" / "balancers"
_STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


@dataclass(frozen=True, slots=True)
class Backend:
    """The hub behind the balancer; its certificate serves the balancer too."""

    port: int
    certificate: Path
    key: Path


def render(name: str, port: int, backend: Backend, **changes: str) -> str:
    """The guide's file for these addresses. `changes`: directives of it that are to have another value, `proxy_buffering="on"`."""
    text = (CONFIGURATIONS / name).read_text(encoding="utf-8")
    swaps = {
        "bind :443": f"bind 127.0.0.1:{port}",
        "listen 443": f"listen 127.0.0.1:{port}",
        "hub1.example.org:8443": f"127.0.0.1:{backend.port}",
        "hub.example.org": "localhost",
        "/etc/nginx/hub-ca.crt": str(backend.certificate),
        "/etc/nginx/hub.crt": str(backend.certificate),
        "/etc/nginx/hub.key": str(backend.key),
    }
    for old, new in swaps.items():
        text = text.replace(old, new)
    for directive, value in changes.items():
        lines = [line for line in text.splitlines() if line.split()[:1] == [directive]]
        assert lines, f"{name} has no {directive}"
        for line in lines:
            text = text.replace(line, f"{line[: len(line) - len(line.lstrip())]}{directive} {value};")
    return text


def missing(name: str) -> str:
    """What the machine lacks for this file; "" when it can run."""
    program = "haproxy" if name.endswith(".cfg") else "nginx"
    if shutil.which(program) is None and not Path("/usr/sbin", program).exists():
        return f"{program} is not installed"
    if "stream" in name and not _STREAM_MODULE.exists():
        return "nginx's stream module is not installed: libnginx-mod-stream"
    return ""


@asynccontextmanager
async def run_balancer(name: str, backend: Backend, folder: Path, **changes: str) -> AsyncIterator[int]:
    """The balancer, accepting; yields its port. `folder` is its own."""
    port = free_port()
    file = folder / name
    text = render(name, port, backend, **changes)
    if name.endswith(".cfg"):
        file.write_text(text, encoding="utf-8")
        command = [_find("haproxy"), "-W", "-db", "-f", str(file)]
    else:
        folders = "".join(
            f" {kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
        )
        text = text.replace("http {", f"http {{ access_log {folder}/access.log;{folders}", 1)
        file.write_text(_nginx_head(folder, stream="stream {" in text) + text, encoding="utf-8")
        command = [_find("nginx"), "-p", str(folder), "-c", str(file), "-e", str(folder / "error.log")]
    output = (folder / "output.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
    )

    async def accepts() -> bool:
        assert process.returncode is None, (folder / "output.log").read_text(errors="replace")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await eventually(accepts, 15, 0.05)
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(20):
            await process.wait()
        output.close()


def _find(program: str) -> str:
    return shutil.which(program) or f"/usr/sbin/{program}"


def _nginx_head(folder: Path, *, stream: bool) -> str:
    """What a distribution's nginx.conf says around the guide's part, for a process of a test's own."""
    lines = [
        f"load_module {_STREAM_MODULE};" if stream else "", "daemon off;", "worker_processes 1;", "user root;" if os.geteuid() == 0 else "", f"pid {folder}/nginx.pid;",
        f"error_log {folder}/error.log info;", "events { worker_connections 2048; }",
    ]  # fmt: skip
    return "\n".join(line for line in lines if line) + "\n"
