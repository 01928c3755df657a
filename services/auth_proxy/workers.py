"""The parent of the worker processes: it binds the public address once for each, keeps them running, and replaces them in turn.

Standard library only: it holds the sockets and must never be the one that fails. Each worker has a listening socket of its own
(SO_REUSEPORT: the kernel spreads connections over them), which stays here while workers come and go, with whatever waits in its queue.

SIGTERM, SIGINT: all workers drain, then it ends. SIGHUP: passed on (certificates). SIGUSR2: a rolling restart: start a successor on the same
socket, wait until it is ready, let the old one drain, then the next. If the parent is killed, the kernel kills the workers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.auth_proxy import defaults
from services.auth_proxy.worker_probes import Probes
from services.auth_proxy.worker_process import WorkerProcess

BACKLOG = 1024
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 10.0
_CLOSE_FROM_S = 1.0
_HEALTHY_AFTER_S = 30.0
_READY_S = 60.0
_POLL_S = 0.1
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What the parent itself needs of the settings; the workers check all of them."""

    count: int
    host: str
    port: int
    listen_file: Path | None
    health_host: str
    health_port: int
    health_file: Path | None
    drain_s: float
    as_json: bool


def read_settings(file: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """Raises ValueError with a sentence."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ValueError(f"cannot read the settings file {file}: {exc.strerror}") from exc
    except ValueError as exc:
        raise ValueError(f"the settings file {file} is not JSON: {exc}") from exc
    if not isinstance(values, dict):
        raise ValueError(f"the settings file {file} must hold one JSON object")

    def setting(name: str, default: object) -> str:
        found = values.get(name)
        return environment.get(f"HERDSMAN_{name.upper()}", str(default if found is None else found))

    count = int(_number(setting("workers", defaults.WORKERS), "workers"))
    drain_s = max(
        _number(setting("drain_delay_s", 0), "drain_delay_s")
        + _number(setting("drain_window_s", defaults.DRAIN_WINDOW_S), "drain_window_s"),
        _number(setting("replace_window_s", defaults.REPLACE_WINDOW_S), "replace_window_s"),
    )
    listen_file, health_file = setting("listen_file", ""), setting("health_file", "")
    return Settings(
        count or count_cores(),
        *_address(setting("listen", defaults.LISTEN)),
        Path(listen_file) if listen_file else None,
        *_address(setting("health_listen", defaults.HEALTH_LISTEN)),
        Path(health_file) if health_file else None,
        drain_s,
        setting("log_format", "json") == "json",
    )


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError as exc:
        raise ValueError(f"{name} must be a number") from exc


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is no address: write host:port")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - as the settings say


def count_cores(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: its affinity, and the control group's quota where there is one."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = quota_file.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on every address that `host` stands for, shared with those of other slots. Raises OSError."""
    made: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            made.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address if port else (*address[:1], made[0].getsockname()[1] if made[1:] else 0, *address[2:]))
            sock.listen(BACKLOG)
    except OSError:
        for sock in made:
            sock.close()
        raise
    return made


class Slot:
    """One place: its sockets, the worker that serves them, and the lock of whoever changes that."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sockets: list[socket.socket] = []
        self.worker: WorkerProcess | None = None
        self.lock = asyncio.Lock()
        self.pause_s = 0.0

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        self.sockets = []


class Parent:
    """`run` lasts until all workers have ended."""

    def __init__(self, settings: Settings, arguments: list[str]) -> None:
        self._settings = settings
        self._arguments = arguments
        self._port = settings.port
        self._slots = [Slot(number) for number in range(settings.count)]
        self._all: set[WorkerProcess] = set()
        self._stop = asyncio.Event()
        self._code = 0
        self._rolling: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Raises OSError when an address can't be had."""
        loop = asyncio.get_running_loop()
        for slot in self._slots:
            self._open(slot)
        self._write(self._settings.listen_file, f"{self._settings.host}:{self._port}\n")
        probes = Probes(lambda: [slot.worker for slot in self._slots], self._stop.is_set)
        server = await probes.serve(self._settings.health_host, self._settings.health_port)
        host, port = server.sockets[0].getsockname()[:2]
        self._write(self._settings.health_file, f"http://{f'[{host}]' if ':' in host else host}:{port}")
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._pass_on, signal.SIGHUP)
        loop.add_signal_handler(signal.SIGUSR2, self._start_roll)
        keepers = [loop.create_task(self._keep(slot), name=f"keep worker {slot.number}") for slot in self._slots]
        stopping = loop.create_task(self._stop.wait(), name="stop")
        await asyncio.wait({*keepers, stopping}, return_when=asyncio.FIRST_COMPLETED)
        self._stop.set()
        stopping.cancel()
        for task in [*keepers, *([self._rolling] if self._rolling else [])]:
            task.cancel()
        failures = await asyncio.gather(*keepers, return_exceptions=True)
        await asyncio.gather(*(worker.end(signal.SIGTERM, self._patience_s) for worker in list(self._all)))
        server.close()
        for failure in failures:
            if isinstance(failure, Exception):
                raise failure
        return self._code

    @property
    def _patience_s(self) -> float:
        return self._settings.drain_s + _PATIENCE_S

    # workers

    def _open(self, slot: Slot) -> None:
        if not slot.sockets:
            slot.sockets = bind(self._settings.host, self._port)
            self._port = slot.sockets[0].getsockname()[1]

    def _start(self, slot: Slot) -> WorkerProcess:
        self._open(slot)
        worker = WorkerProcess(slot.number, self._arguments, slot.sockets)
        self._all.add(worker)
        watching = asyncio.get_running_loop().create_task(self._watch(worker), name=f"watch worker {slot.number}")

        def ended(_: asyncio.Future[int]) -> None:
            self._all.discard(worker)
            watching.cancel()

        worker.exited.add_done_callback(ended)
        self._say("worker_started", worker=slot.number, pid=worker.pid)
        return worker

    async def _keep(self, slot: Slot) -> None:
        """Start the slot's worker and start another whenever it dies; ends only when its settings cannot be used."""
        slot.worker = self._start(slot)
        while True:
            worker = slot.worker
            if worker is not None:
                await asyncio.wait([worker.exited])
            async with slot.lock:
                if worker is not slot.worker:
                    continue  # its successor took its place
                if worker is not None:
                    code = worker.exited.result()
                    if code == defaults.EXIT_CONFIG and not worker.was_ready:
                        self._code = code
                        return
                    self._say("worker_died", worker=slot.number, pid=worker.pid, code=code, restart_in_s=slot.pause_s)
                    if time.monotonic() - worker.started_at > _HEALTHY_AFTER_S:
                        slot.pause_s = 0.0
                    slot.worker = None
                await self._pause(slot)
                slot.worker = self._start(slot)

    async def _pause(self, slot: Slot) -> None:
        """Wait before the next try; for long only with the sockets closed, so that the kernel asks other workers meanwhile."""
        if slot.pause_s >= _CLOSE_FROM_S:
            slot.close()
        await asyncio.sleep(slot.pause_s * random.uniform(0.75, 1.25))
        slot.pause_s = min(max(slot.pause_s * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)

    def _start_roll(self) -> None:
        if self._rolling is None or self._rolling.done():
            self._rolling = asyncio.get_running_loop().create_task(self._roll(), name="rolling restart")

    async def _roll(self) -> None:
        """All workers anew, one after the other. A successor that does not become ready ends it: the old ones stay."""
        for slot in self._slots:
            async with slot.lock:
                old = slot.worker
                fresh = self._start(slot)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_READY_S):
                        await self._watch(fresh)
                if not fresh.was_ready or fresh.exited.done():
                    self._say("rolling_restart_failed", worker=slot.number, pid=fresh.pid, level="error")
                    await fresh.end(signal.SIGKILL, 1.0)
                    return
                slot.worker = fresh
                slot.pause_s = 0.0
            if old is not None:
                await old.end(signal.SIGUSR2, self._patience_s)
            self._say("worker_replaced", worker=slot.number, pid=fresh.pid)
        self._say("rolling_restart_done", workers=len(self._slots))

    async def _watch(self, worker: WorkerProcess) -> None:
        """Notice when it is ready for the first time: only then it can be sent signals that mean something to it."""
        while not worker.exited.done():
            if await worker.is_ready():
                return
            await asyncio.wait([worker.exited], timeout=_POLL_S)

    def _pass_on(self, number: signal.Signals) -> None:
        for worker in self._all:
            if worker.was_ready:
                worker.send(number)

    # words

    def _say(self, event: str, *, level: str = "info", **facts: object) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._settings.as_json:
            line = json.dumps(
                {
                    "event": event,
                    "level": level,
                    "timestamp": now,
                    "service": "auth_proxy",
                    "logger": "workers",
                    **facts,
                }
            )
        else:
            words = " ".join(f"{name}={value}" for name, value in facts.items())
            line = f"{now} [{level:<9}] {event:<30} logger=workers service=auth_proxy {words}"
        try:
            os.write(sys.stderr.fileno(), f"{line}\n".encode())
        except OSError:
            return  # a full disk under the log is no reason to stop serving

    @staticmethod
    def _write(file: Path | None, text: str) -> None:
        if file is not None:
            fresh = file.with_name(f"{file.name}.new")
            fresh.write_text(text, encoding="ascii")
            fresh.replace(file)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m services.auth_proxy", description="Herdsman's front door and its worker processes"
    )
    parser.add_argument("--config", type=Path, required=True, help="JSON file with the settings")
    arguments = parser.parse_args()
    try:
        settings = read_settings(arguments.config)
    except ValueError as exc:
        sys.stderr.write(f"auth_proxy: {exc}\n")
        return defaults.EXIT_CONFIG
    command = ["-m", "services.auth_proxy", "--config", str(arguments.config)]
    try:
        return asyncio.run(Parent(settings, command).run())
    except OSError as exc:
        sys.stderr.write(f"auth_proxy: cannot listen on {settings.host}:{settings.port}: {exc.strerror or exc}\n")
        return 1
