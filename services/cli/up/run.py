"""The whole of `herdsman up`: prepare the folder, start the hub, say that it is ready, look after the local cluster, stop.

Called by `commands/up`. The order matters: nothing is written before there is room and the folder is ours alone, nothing
starts before the leftovers of a killed run are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

from libs.common import errors
from services.cli.up import disk
from services.cli.up.greeting import greet
from services.cli.up.layout import Layout
from services.cli.up.local import LocalCluster, LocalOptions
from services.cli.up.local_import import Importer
from services.cli.up.logs import Logs
from services.cli.up.narrator import Narrator
from services.cli.up.preparation import Options, Prepare, Prepared, child_environment, prepare_hub
from services.cli.up.progress import Progress
from services.cli.up.record import Record, RunLock, end_leftovers
from services.cli.up.store_keeper import StoreKeeper, store_health
from services.cli.up.supervisor import Supervisor


async def run(options: Options, progress: Progress, prepare: Prepare = prepare_hub) -> None:
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
        await _run_locked(options, layout, progress, prepare, began)
    finally:
        progress.close()
        lock.release()


async def _run_locked(options: Options, layout: Layout, progress: Progress, prepare: Prepare, began: float) -> None:
    environment = child_environment(os.environ)
    prepared = await asyncio.to_thread(prepare, options, layout, environment)
    for line in prepared.notices:
        progress.say(line)
    record = Record(layout, {
        "url": prepared.public_url, "ca_file": str(layout.ca_file), "admin_user": options.admin_user,
        "admin_password_file": str(layout.admin_password), "nats_url": prepared.nats_url, "data_dir": str(layout.root),
        "pid": os.getpid(), "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    })  # fmt: skip
    record.write()
    supervisor = Supervisor(layout.root, Logs(layout.logs), Narrator(progress, record))
    importer = Importer(layout, prepared.public_url, options.admin_user)
    stop = _stop_signals(supervisor)
    work = asyncio.create_task(
        _work(options, layout, supervisor, importer, progress, prepared, environment, began), name="up"
    )
    stopping = asyncio.create_task(stop.wait(), name="stop")
    logs = asyncio.create_task(supervisor.keep_logs_small(), name="logs")
    keeper = StoreKeeper(
        layout.root, store_health(prepared.monitoring_port), partial(supervisor.restart, "nats"), progress.say
    )
    store = asyncio.create_task(keeper.run(), name="store")
    try:
        await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
            await stopping
    finally:
        tasks = (work, stopping, logs, store)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _shut_down(supervisor, importer, progress, record)


async def _work(
    options: Options, layout: Layout, supervisor: Supervisor, importer: Importer, progress: Progress,
    prepared: Prepared, environment: Mapping[str, str], began: float,
) -> None:  # fmt: skip
    """The start itself; then the local cluster, until there is nothing more to do for it."""
    for wave in prepared.waves:
        await supervisor.start(wave)
    progress.say(
        greet(layout, prepared.public_url, options.admin_user, options.local_cluster, time.monotonic() - began)
    )
    if options.local_cluster is None:
        return
    local = LocalOptions(options.local_cluster, options.insist, prepared.public_url, options.log_level, environment)
    await LocalCluster(layout, local, supervisor, importer, progress).run()


async def _shut_down(supervisor: Supervisor, importer: Importer, progress: Progress, record: Record) -> None:
    began = time.monotonic()
    # The hub still runs, so the sign-in can be revoked; a second is enough or it ends by itself.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await importer.close()
    survivors = await supervisor.stop()
    # What survived stays written down: the next start ends it.
    record.processes = {name: process for name, process in record.processes.items() if process.alive}
    try:
        record.write()
    except errors.Unavailable as error:
        progress.say(f"warning: {error.message}")
    if survivors:
        progress.say(f"could not end {', '.join(survivors)}: the next start will try again")
    else:
        progress.say(f"stopped ({time.monotonic() - began:.1f} s)")


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
