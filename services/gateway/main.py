"""The wiring of the gateway, on one screen."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from aiohttp import web

from libs.common.access.live import start_live_grants
from libs.common.apiserver.watch import WatchCache
from libs.common.resources.registry import RESOURCE_TYPES
from libs.common.runtime.host import Host
from services.gateway.app import build_app, make_runner
from services.gateway.config import GatewayConfig
from services.gateway.nodes import NODES
from services.gateway.state import State
from services.gateway.token_feed import TOKENS, TokenFeed
from services.gateway.token_reader import TokenReader

CA_LOOK_EVERY_S = 2.0


async def build(host: Host[GatewayConfig]) -> None:
    """Informers and grants first, then the door: whoever comes in finds everything there."""
    config = host.config
    # The caches come before all who wait for an informer: they want to hear its first listing, too.
    feed = TokenFeed(host.store(TOKENS.bucket))
    informers = {t.plural: await host.informer(t.bucket, t.plural) for t in RESOURCE_TYPES if t is not TOKENS}
    caches = {plural: WatchCache(informer, now=host.now) for plural, informer in {**informers, "tokens": feed}.items()}
    feed.gaps.append(caches["tokens"].cut)
    host.spawn("token feed", feed.run())
    host.ready_when("token feed", feed.synced.is_set)
    grants = await start_live_grants(host)
    ca = await asyncio.to_thread(_read_ca, config.public_ca_file)
    state = State(
        config=config, bus=host.bus, verifier=host.verifier, grants=grants, caches=caches, now=host.now,
        monotonic=host.monotonic, waiting_for=host.waiting_for, ca=ca, feed=feed, tokens=TokenReader(host.store(TOKENS.bucket), grants),
        nodes=host.store(NODES.bucket),
    )  # fmt: skip

    # A revoked token or a changed right ends the watches that it opened.
    grants.subscribe(lambda _grants: state.wake_streams())
    feed.ended.append(state.wake_streams)

    host.spawn("public ca", _follow_ca(state))
    runner = make_runner(build_app(state))
    await runner.setup()
    host.on_stop(runner.cleanup)
    await _listen(runner, config)


async def _listen(runner: web.AppRunner, config: GatewayConfig) -> None:
    """Open the one address of the settings. Raises ValueError when there is none, or more than one."""
    if (config.socket is None) == (not config.listen):
        raise ValueError("the gateway needs exactly one of the settings socket and listen")
    if config.socket is not None:
        # A socket that a killed process left behind; a living one is the supervisor's business, which starts one gateway.
        await asyncio.to_thread(config.socket.unlink, missing_ok=True)
        await web.UnixSite(runner, str(config.socket)).start()
        await asyncio.to_thread(config.socket.chmod, 0o600)
        return
    address, _, port = config.listen.rpartition(":")
    await web.TCPSite(runner, address.strip("[]") or "0.0.0.0", int(port)).start()  # noqa: S104 - what the settings ask for
    if config.listen_file is not None:
        bound = runner.addresses[0]
        await asyncio.to_thread(config.listen_file.write_text, f"{bound[0]}:{bound[1]}", encoding="utf-8")


async def _follow_ca(state: State) -> None:
    """Hand out what is in the file now. What can't be read for a moment changes nothing."""
    while True:
        await asyncio.sleep(CA_LOOK_EVERY_S)
        with contextlib.suppress(OSError, UnicodeDecodeError):
            state.ca = await asyncio.to_thread(_read_ca, state.config.public_ca_file)


def _read_ca(file: Path | None) -> str:
    return file.read_text(encoding="ascii") if file is not None else ""
