"""The checks of `herdsman doctor`, from near to far: settings, network, certificate, clock, the hub's health, the sign-in.

A check that fails makes those behind it pointless, so they are left out rather than reported as failures of their own.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from libs.common import errors
from services.cli.app import App
from services.cli.hub import Hub
from services.cli.settings import Server, config_file

_SKEW_S = 30
_CERTIFICATE_DAYS = 14
_ROOM_BYTES = 2 * 2**30


class Finding(NamedTuple):
    """`result` is ok, warn or fail."""

    check: str
    result: str
    detail: str


def examine(app: App, data_dir: Path | None) -> Iterator[Finding]:
    """All findings, in the order in which to mend them."""
    yield _kubectl()
    if data_dir is not None:
        yield from _data_dir(data_dir)
    try:
        server = app.server()
    except errors.HerdsmanError as error:
        yield Finding("settings", "fail", error.message)
        return
    yield from _settings(server)
    parts = urlsplit(server.url)
    host, port = parts.hostname or "", parts.port or 443
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    if proxy:
        yield Finding(
            "proxy",
            "ok",
            f"HTTPS_PROXY is {urlsplit(proxy).hostname or proxy}; NO_PROXY is {os.environ.get('NO_PROXY') or 'empty'}",
        )
    else:
        yield (reach := _reach(host, port))
        if reach.result == "fail":
            return
        yield (certificate := _certificate(server, host, port))
        if certificate.result == "fail":
            return
    yield from _hub(app, server)


def _kubectl() -> Finding:
    found = shutil.which("kubectl")
    return (
        Finding("kubectl", "ok", found)
        if found
        else Finding("kubectl", "warn", "not on PATH: install it to use clusters with herdsman kubeconfig")
    )


def _data_dir(data_dir: Path) -> Iterator[Finding]:
    from services.cli.files import read_json
    from services.cli.up.layout import Layout
    from services.cli.up.record import is_running

    layout = Layout(data_dir.expanduser().absolute())
    if not layout.record.exists():
        yield Finding(
            "data folder", "fail", f'{layout.root} holds no hub: start one with "herdsman up --data-dir {layout.root}"'
        )
        return
    free = shutil.disk_usage(layout.root).free
    yield Finding(
        "disk",
        "ok" if free > _ROOM_BYTES else "warn",
        f"{free >> 20} MiB free for {layout.root}; a full disk stops the hub",
    )
    if not is_running(layout):
        yield Finding("supervisor", "fail", f'it does not run: start it with "herdsman up --data-dir {layout.root}"')
        return
    pids = read_json(layout.record).get("pids") or {}
    yield Finding("supervisor", "ok", "runs " + ", ".join(f"{name} ({pid})" for name, pid in pids.items()))


def _settings(server: Server) -> Iterator[Finding]:
    file = config_file()
    if file.exists() and file.stat().st_mode & 0o077:
        yield Finding("settings", "warn", f"{file} can be read by others: chmod 600 {file}")
    else:
        yield Finding("settings", "ok", f"{server.name} is {server.url}")


def _reach(host: str, port: int) -> Finding:
    try:
        addresses = sorted({str(a[4][0]) for a in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
    except socket.gaierror:
        return Finding("network", "fail", f'the name "{host}" does not resolve: check the address and your network')
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return Finding(
            "network",
            "fail",
            f"{host}:{port} ({', '.join(addresses)}): {reason}; check that the hub runs and no firewall is between",
        )
    return Finding("network", "ok", f"{host}:{port} answers ({', '.join(addresses)})")


def _certificate(server: Server, host: str, port: int) -> Finding:
    from services.cli.hub import untrusted

    try:
        context = ssl.create_default_context(cadata=server.ca or None)
        with (
            socket.create_connection((host, port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str((secure.getpeercert() or {})["notAfter"])), UTC)
    except ssl.SSLCertVerificationError as error:
        return Finding("certificate", "fail", untrusted(server, error))
    except OSError as error:
        return Finding("certificate", "fail", f"no TLS there: {error.strerror or error}; is this the address of a hub?")
    days = (ends - datetime.now(UTC)).days
    if days < _CERTIFICATE_DAYS:
        return Finding("certificate", "warn", f"it ends in {days} days: restart the hub to renew it")
    return Finding("certificate", "ok", f"trusted until {ends:%Y-%m-%d}")


def _hub(app: App, server: Server) -> Iterator[Finding]:
    with app.hub(server) as hub:
        try:
            hub.fetch("GET", "/healthz")
            yield from _clock(hub)
            hub.fetch("GET", "/readyz")
            yield Finding("hub", "ok", "ready")
        except errors.HerdsmanError as error:
            yield Finding("hub", "fail", f"{error.message}; {server.url}/readyz?verbose says more")
            return
        if not server.token:
            yield Finding("sign-in", "warn", 'not signed in: run "herdsman login"')
            return
        try:
            review = hub.post(
                "/apis/authentication.k8s.io/v1/selfsubjectreviews",
                {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
            )
        except errors.HerdsmanError as error:
            yield Finding("sign-in", "fail", error.message)
            return
        name = ((review.get("status") or {}).get("userInfo") or {}).get("username", "unknown")
        yield Finding("sign-in", "ok", f"{name}, until {server.expires_at or 'revoked'}")


def _clock(hub: Hub) -> Iterator[Finding]:
    if not hub.last_date:
        return
    skew = (datetime.now(UTC) - parsedate_to_datetime(hub.last_date)).total_seconds()
    if abs(skew) > _SKEW_S:
        yield Finding(
            "clock",
            "warn",
            f"this machine is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the hub: synchronize both",
        )
    else:
        yield Finding("clock", "ok", f"within {abs(skew):.0f} s of the hub")
