"""The whole of `herdsman up`: prepare the folder, start the hub, say that it is ready, look after the local cluster, stop.

Called by `commands/up`. The order matters: nothing is written before there is room and the folder is ours alone, nothing
starts before the leftovers of a killed run are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from libs.common.crypto.envelope import generate_key_pair
from services.cli.files import write_private
from services.cli.up import bus, disk, pki, ports
from services.cli.up.config import Facts, write_configs
from services.cli.up.greeting import greet
from services.cli.up.hub_programs import hub_programs
from services.cli.up.layout import Layout
from services.cli.up.local import LocalCluster, LocalOptions
from services.cli.up.local_import import Importer
from services.cli.up.logs import Logs
from services.cli.up.narrator import Narrator
from services.cli.up.programs import Program
from services.cli.up.progress import Progress
from services.cli.up.record import Record, RunLock, end_leftovers
from services.cli.up.supervisor import Supervisor

_PASSED_ON = ("HERDSMAN_CACHE_DIR", "HERDSMAN_OTLP_ENDPOINT")


@dataclass(frozen=True, slots=True)
class Options:
    """The command line. `local_cluster` None = none; `insist` when its name was given."""

    data_dir: Path
    host: str
    port: int
    admin_user: str
    log_level: str
    local_cluster: str | None
    insist: bool


async def run(options: Options, progress: Progress) -> None:
    """Run until SIGTERM, SIGINT or SIGHUP. Raises a family of `libs.common.errors` when the hub can't start."""
    began = time.monotonic()
    layout = Layout(options.data_dir)
    layout.make()
    if warning := disk.check_room(layout.root):
        progress.say(f"warning: {warning}; a full disk stops the hub")
    lock = RunLock(layout)
    lock.acquire()
    try:
        if ended := await end_leftovers(layout):
            progress.say(f"ended what a killed start had left: {', '.join(ended)}")
        await _run_locked(options, layout, progress, began)
    finally:
        progress.close()
        lock.release()


async def _run_locked(options: Options, layout: Layout, progress: Progress, began: float) -> None:
    ports.check_public(options.host, options.port)
    facts, nats_port = await asyncio.to_thread(_prepare, options, layout, progress)
    environment = child_environment(os.environ)
    record = Record(layout, {
        "url": facts.public_url, "ca_file": str(layout.ca_file), "admin_user": options.admin_user,
        "admin_password_file": str(layout.admin_password), "nats_url": facts.nats_url, "data_dir": str(layout.root),
        "pid": os.getpid(), "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    })  # fmt: skip
    record.write()
    supervisor = Supervisor(layout.root, Logs(layout.logs), Narrator(progress, record))
    programs = hub_programs(
        layout, environment, nats_port=nats_port, probe_host=_probe_host(options.host), public_port=options.port
    )
    importer = Importer(layout, facts.public_url, options.admin_user)
    stop = _stop_signals(supervisor)
    work = asyncio.create_task(_work(options, layout, supervisor, importer, progress, programs, facts, environment, began), name="up")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    logs = asyncio.create_task(supervisor.keep_logs_small(), name="logs")
    try:
        await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
            await stopping
    finally:
        for task in (work, stopping, logs):
            task.cancel()
        await asyncio.gather(work, stopping, logs, return_exceptions=True)
        await _shut_down(supervisor, importer, progress, record)


async def _work(
    options: Options, layout: Layout, supervisor: Supervisor, importer: Importer, progress: Progress,
    programs: list[Program], facts: Facts, environment: Mapping[str, str], began: float,
) -> None:  # fmt: skip
    """The start itself; then the local cluster, until there is nothing more to do for it."""
    nats, *services = programs
    await supervisor.start([nats])
    await supervisor.start(services)
    progress.say(greet(layout, facts.public_url, options.admin_user, options.local_cluster, time.monotonic() - began))
    if options.local_cluster is None:
        return
    local = LocalOptions(options.local_cluster, options.insist, facts.public_url, options.log_level, environment)
    await LocalCluster(layout, local, supervisor, importer, progress).run()


async def _shut_down(supervisor: Supervisor, importer: Importer, progress: Progress, record: Record) -> None:
    began = time.monotonic()
    # The hub still runs, so the sign-in can be revoked; a second is enough or it ends by itself.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await importer.close()
    survivors = await supervisor.stop()
    record.processes = supervisor.running
    record.write()
    if survivors:
        progress.say(f"could not end {', '.join(survivors)}: the next start will try again")
    else:
        progress.say(f"stopped ({time.monotonic() - began:.1f} s)")


def _prepare(options: Options, layout: Layout, progress: Progress) -> tuple[Facts, int]:
    """Everything on disk that the services need. Idempotent: a second start finds it all and writes the settings anew."""
    reason = pki.ensure_certificates(layout, options.host, datetime.now(UTC))
    if reason and reason != "it is the first":
        progress.say(f"the server certificate was renewed: {reason}")
    if not (layout.envelope_key.exists() and layout.envelope_public_key.exists()):
        private, public = generate_key_pair()
        write_private(layout.envelope_key, private)
        write_private(layout.envelope_public_key, public, 0o644)
    first_start = not any(layout.nats_store.iterdir())
    if first_start and not layout.admin_password.exists():
        write_private(layout.admin_password, secrets.token_urlsafe(18) + "\n")
    chosen = ports.keep_ports(layout.ports, ("nats", "nats_websocket"))
    credentials = bus.prepare(layout, port=chosen["nats"], websocket_port=chosen["nats_websocket"])
    # An address that a dead process wrote must not pass for that of the new one.
    for stale in layout.health.iterdir():
        stale.unlink()
    layout.gateway_socket.unlink(missing_ok=True)
    facts = Facts(
        listen=f"[{options.host}]:{options.port}" if ":" in options.host else f"{options.host}:{options.port}",
        public_url=f"https://{pki.public_host(options.host)}:{options.port}",
        nats_url=f"nats://127.0.0.1:{chosen['nats']}",
        nats_websocket=f"127.0.0.1:{chosen['nats_websocket']}",
        credentials=credentials.services,
        agents_account=credentials.agents_account,
        agents_signing_seed=credentials.agents_signing_seed,
        admin_user=options.admin_user,
        log_level=options.log_level,
    )
    write_configs(layout, facts)
    return facts, chosen["nats"]


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Ours without `HERDSMAN_…`: services read their settings from there, and a client's variables mean other things."""
    kept = {k: v for k, v in environ.items() if not k.startswith("HERDSMAN_") or k in _PASSED_ON}
    return {**kept, "PYTHONUNBUFFERED": "1"}


def _probe_host(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - recognised, not listened on


def _stop_signals(supervisor: Supervisor) -> asyncio.Event:
    """Set by the first signal; the second makes the stop hurry."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            supervisor.hurry()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    return stop
