"""A real nats-server for tests: the wheel's program with the embedded hub's configuration, and what may happen to it.

`with NatsServer() as server:` starts one in a folder of its own; `server.connect_as("identity")` gives the options of a client. Kill, stop, pause
and restart act on this server's process alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from libs.common.bus import accounts
from libs.common.bus.connection import NatsOptions
from libs.common.bus.credentials import Credential, CredentialSource, parse_creds
from libs.common.bus.server import ServerSettings, find_program, render_config
from libs.common.contracts import permissions

START_S = 15.0
STORE_BYTES = 16 * 1024 * 1024 * 1024


class NatsServer:
    """One server in operator mode. `directory` holds keys, configuration, log and (unless `store` is given) the streams."""

    def __init__(self, *, store: Path | None = None, max_store_bytes: int = STORE_BYTES) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="herdsman-nats-"))
        self.keys = accounts.ensure_keys(self.directory / "keys")
        self.port, self.websocket_port, self.monitoring_port = _free_ports(3)
        self._store = store or self.directory / "data"
        self._store.mkdir(exist_ok=True)
        self._max_store_bytes = max_store_bytes
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> NatsServer:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.resume()
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    # ── clients ──

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def websocket_url(self) -> str:
        return f"ws://127.0.0.1:{self.websocket_port}"

    def connect_as(self, who: str, *, server: str = "", **options: object) -> NatsOptions:
        """Options of a client that is a service, `administration` or `system`; `server` = another address, e.g. a proxy's."""
        now = datetime.now(UTC)
        inbox = "_INBOX"
        if who == "administration":
            text = accounts.administration_credentials(self.keys, now)
        elif who == "system":
            text = accounts.system_credentials(self.keys, now)
        else:
            text, inbox = accounts.service_credentials(self.keys, who, now), permissions.inbox_prefix(who)
        return self.options(_always(text), server=server, name=who, inbox_prefix=inbox, **options)

    def options(self, credential: CredentialSource, *, server: str = "", **options: object) -> NatsOptions:
        defaults: dict[str, object] = {"max_backoff_s": 0.5, "check_every_s": 2.0}
        return NatsOptions(servers=(server or self.url,), credential=credential, **(defaults | options))  # type: ignore[arg-type]

    # ── its life ──

    def start(self) -> None:
        """Start and wait until it is healthy."""
        config = self.directory / "nats.conf"
        config.write_text(self._config(), encoding="utf-8")
        with (self.directory / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(find_program()), "-c", str(config)], stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_S
        while not self.is_healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nats-server did not start:\n{self.log()[-2000:]}")
            time.sleep(0.02)

    def is_healthy(self) -> bool:
        return self.health() == "ok"

    def health(self) -> str:
        """`ok`, or what /healthz says is wrong."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.monitoring_port}/healthz", timeout=2) as answer:
                return "ok" if answer.status == 200 else str(answer.status)
        except urllib.error.HTTPError as exc:
            return exc.read().decode("utf-8", "replace") or str(exc.code)
        except OSError as exc:
            return str(exc)

    def kill(self) -> None:
        """kill -9: no chance to write anything."""
        self._signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
        self._wait()

    def pause(self) -> None:
        """The process stands still; its connections stay open and silent."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._signal(signal.SIGCONT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def log(self) -> str:
        return (self.directory / "nats.log").read_text(encoding="utf-8", errors="replace")

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    # ── inside ──

    def _config(self) -> str:
        now = datetime.now(UTC)
        settings = ServerSettings(
            directory=self._store,
            port=self.port,
            websocket_port=self.websocket_port,
            operator_jwt=accounts.operator_jwt(self.keys, now),
            system_account=self.keys.public("sys"),
            accounts=accounts.account_jwts(self.keys, now),
            max_store_bytes=self._max_store_bytes,
            monitoring_port=self.monitoring_port,
        )
        return render_config(settings)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)

    def _wait(self) -> None:
        if self._process is not None:
            self._process.wait(15)
            self._process = None


def _always(text: str) -> CredentialSource:
    credential = parse_creds(text)

    async def source() -> Credential:
        return credential

    return source


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()
