"""The wiring of the audit log: its tasks, and its place in the order of stopping."""

from __future__ import annotations

import asyncio

from libs.common.audit.chain import load_private_key
from libs.common.audit.stream import audit_stream
from libs.common.bus.journal import open_journal
from libs.common.runtime.host import Host
from services.auth_proxy.audit import AuditLog, AuditSettings
from services.auth_proxy.audit_figures import AuditFigures
from services.auth_proxy.config import AuthProxyConfig


async def start_audit(host: Host[AuthProxyConfig]) -> AuditLog:
    """A log whose chain has begun. It is closed after everything that is started later has stopped: nothing ends unseen."""
    config = host.config
    key = load_private_key(await asyncio.to_thread(config.identity_private_key.read_bytes))
    settings = AuditSettings(
        config.audit_dir, config.audit_spool_bytes, config.audit_when_full, config.audit_file, config.bucket_replicas
    )
    journal = open_journal(host.bus, audit_stream(config.audit_stream_bytes, config.audit_stream_days * 24 * 3600))
    log = AuditLog(settings, key, journal, AuditFigures())
    await log.start()

    async def release() -> None:
        log.release()

    async def close() -> None:
        await log.close(config.stop_timeout_s / 4)

    host.on_stop(release)
    host.spawn("audit writer", log.run())
    host.spawn("audit publisher", log.publish())
    host.on_stop(close)
    return log
