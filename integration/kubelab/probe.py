"""A small HTTPS GET for readiness: no client library, one connection a question, a deadline on everything.

Used by `supervisor` (is this component ready?) and `run` (is this cluster ready?).
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from integration.kubelab import pki
from integration.kubelab.components import Probe

_ANSWER_LIMIT_BYTES = 4 * 2**20


class Prober:
    """Asks one address again and again; keeps the TLS context, whose making costs more than the question."""

    def __init__(self, probe: Probe, pki_folder: Path) -> None:
        self._probe = probe
        self._pki_folder = pki_folder
        self._context: ssl.SSLContext | None = None

    async def get(self, path: str | None = None, timeout_s: float = 3.0) -> tuple[int, bytes] | None:
        """Status and body; None when nobody answers properly. `path` replaces that of the probe's address."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._ask(path)
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
            return None

    async def is_ready(self) -> bool:
        answer = await self.get()
        return answer is not None and answer[0] == 200

    async def _ask(self, path: str | None) -> tuple[int, bytes]:
        address = urlsplit(self._probe.url)
        if self._context is None:
            self._context = _tls_context(self._probe, self._pki_folder)
        reader, writer = await asyncio.open_connection(address.hostname, address.port, ssl=self._context)
        try:
            # HTTP/1.0, so that the body comes in one piece and ends with the connection.
            writer.write(f"GET {path or address.path} HTTP/1.0\r\nHost: {address.netloc}\r\n\r\n".encode())
            answer = b""
            while chunk := await reader.read(65536):
                answer += chunk
                if len(answer) > _ANSWER_LIMIT_BYTES:
                    raise ValueError("the answer is too long for a probe")
        finally:
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), body


def _tls_context(probe: Probe, pki_folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(
        cafile=str(pki.certificate_path(pki_folder, probe.authority)) if probe.authority else None
    )
    if probe.authority is None:
        # controller-manager and scheduler make themselves a certificate at each start; only liveness is asked, nothing is sent.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if probe.identity:
        context.load_cert_chain(
            pki.certificate_path(pki_folder, probe.identity), pki.key_path(pki_folder, probe.identity)
        )
    return context
