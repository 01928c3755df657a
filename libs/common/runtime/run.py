"""From start to stop of one service process: settings, logs, bus, `build()`, ready, signal, stop in reverse."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from libs.common.bus.nats import NatsOptions, connect
from libs.common.contracts.methods import OWNERS
from libs.common.contracts.permissions import SHORT_LIVED, inbox_prefix
from libs.common.crypto.envelope import Verifier
from libs.common.observe import log, trace
from libs.common.runtime import collector, loop
from libs.common.runtime.config import ConfigError, ServiceConfig, load
from libs.common.runtime.health import measure_loop_lag, serve_health
from libs.common.runtime.host import Host
from libs.common.store.jetstream import JetStreamStore

C = TypeVar("C", bound=ServiceConfig)
EXIT_CONFIG = 2


def run(service: str, config_type: type[C], build: Callable[[Host[C]], Coroutine[Any, Any, None]]) -> None:
    """Run `service` until SIGTERM or SIGINT. Exits 2 for unusable settings, 1 when a part of it failed."""
    parser = argparse.ArgumentParser(prog=f"python -m services.{service}", description=f"Herdsman's {service} service")
    parser.add_argument("--config", type=Path, required=True, help="JSON file with the settings")
    arguments = parser.parse_args()
    try:
        config = load(config_type, arguments.config)
    except ConfigError as exc:
        sys.stderr.write(f"{service}: {exc}\n")
        sys.exit(EXIT_CONFIG)
    log.configure(service, config.log_level, config.log_format)
    trace.configure(service, config.otlp_endpoint)
    logger = log.get("runtime")
    try:
        uvloop.run(_serve(service, config, build))
    except BaseExceptionGroup as group:
        for failure in group.exceptions:
            logger.error("service_failed", error=str(failure), exc_info=failure)
        sys.exit(1)


async def _serve(service: str, config: C, build: Callable[[Host[C]], Coroutine[Any, Any, None]]) -> None:
    logger = log.get("runtime")
    stop = asyncio.Event()
    running = asyncio.get_running_loop()
    running.set_exception_handler(loop.report)
    for number in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(number, stop.set)
    verifier = Verifier.load(config.identity_public_key, Host.now)
    options = NatsOptions(
        servers=tuple(config.nats_url), creds_file=config.nats_creds, name=service, inbox_prefix=inbox_prefix(service)
    )
    async with asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connect(options))
        if service in OWNERS:
            await JetStreamStore(bus, service).ensure(replicas=config.bucket_replicas)
        for bucket in [bucket for bucket, owner in SHORT_LIVED.items() if owner == service]:
            await JetStreamStore(bus, bucket).ensure(replicas=config.bucket_replicas)
        host = Host(service, config, bus, lambda bucket: JetStreamStore(bus, bucket), verifier, tasks, stack)
        await stack.enter_async_context(serve_health(config.health_listen, config.health_file, host.waiting_for))
        host.spawn("loop lag", measure_loop_lag())
        building = asyncio.create_task(build(host), name="build")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait({building, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if building.done():
            building.result()
            await host.finish_build()
            collector.settle()
            logger.info("service_started")
            await stopping
        else:
            building.cancel()
            await asyncio.gather(building, return_exceptions=True)
        logger.info("service_stopping")
        host.begin_stop()
