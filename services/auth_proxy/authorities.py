"""The certificate authorities by which this hub may be known, told to agents; and the server certificate, followed in its files.

Both are read again when their files change: whoever renews them (a person, `herdsman hub ca`, a mounted Secret) has to tell nobody.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import structlog

from libs.common.crypto.bundle import digest_of, is_authority
from libs.common.runtime.config import ConfigError

log = structlog.get_logger(component="authorities")
LOOK_EVERY_S = 2.0


class Authorities:
    """`pem` and `digest` are those of the last bundle that could be read; empty when none is published."""

    def __init__(
        self,
        ca_file: Path | None,
        followed: tuple[Path, ...],
        on_ca: Callable[[str], None],
        on_followed: Callable[[], None],
    ) -> None:
        self.pem = b""
        self.digest = ""
        self._ca_file = ca_file
        self._followed = followed
        self._on_ca = on_ca
        self._on_followed = on_followed
        self._seen = self._stamp()
        if ca_file is not None:
            try:
                self._take(ca_file.read_bytes())
            except (OSError, ValueError) as exc:
                raise ConfigError(f"the certificate authorities in {ca_file} cannot be used: {exc}") from exc

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Read what changed. What can't be used is reported and changes nothing."""
        stamp = await asyncio.to_thread(self._stamp)
        if stamp != self._seen:
            self._seen = stamp
            self._on_followed()
        if self._ca_file is None:
            return
        try:
            data = await asyncio.to_thread(self._ca_file.read_bytes)
            if data != self.pem:
                self._take(data)
        except (OSError, ValueError) as exc:
            log.error("certificate_authorities_refused", error=str(exc))

    def _take(self, data: bytes) -> None:
        digest = digest_of(data)
        if not is_authority(data):
            raise ValueError("a certificate in it is no authority's")
        if self.digest and digest != self.digest:
            log.info("certificate_authorities_changed", digest=digest)
        self.pem, self.digest = data, digest
        self._on_ca(digest)

    def _stamp(self) -> tuple[str, ...]:
        found = []
        for file in self._followed:
            try:
                found.append(hashlib.sha256(file.read_bytes()).hexdigest())
            except OSError:
                found.append("")
        return tuple(found)
