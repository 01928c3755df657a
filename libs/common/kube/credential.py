"""How we prove to an API server who we are: what goes into `Authorization`, and which client certificate is shown.

A credential is asked before every request, so that one that changes on disk (a bound service-account token lives an hour)
is picked up without a restart. `exec_plugin` holds the one that runs a program.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from libs.common import errors

TOKEN_FILE_AGE_S = 30.0
"""A token file is read again after this long; kubelet replaces it well before the old one expires."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """PEM texts of a certificate (chain) and its key."""

    certificate: bytes
    key: bytes

    def load_into(self, context: ssl.SSLContext) -> None:
        """Show this certificate on connections of `context`. Raises Invalid. The key never reaches a disk where memory files exist."""
        try:
            if hasattr(os, "memfd_create"):
                self._load_from_memory(context)
            else:
                self._load_from_disk(context)
        except (ssl.SSLError, OSError) as exc:
            raise errors.Invalid(f"the client certificate cannot be used: {exc}") from exc

    def _load_from_memory(self, context: ssl.SSLContext) -> None:
        descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, self.certificate + b"\n" + self.key)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)

    def _load_from_disk(self, context: ssl.SSLContext) -> None:
        with tempfile.NamedTemporaryFile() as file:  # made with mode 0600
            file.write(self.certificate + b"\n" + self.key)
            file.flush()
            context.load_cert_chain(file.name)


class Credential(Protocol):
    """`refused` is called after a 401: the next `authorization` must not come from a cache."""

    async def authorization(self) -> str | None:
        """The value of the Authorization header, or None when a client certificate is the proof. Raises Unauthenticated."""
        ...

    async def certificate(self) -> ClientCertificate | None:
        """The client certificate to show on new connections."""
        ...

    def refused(self) -> bool:
        """The API server answered 401. Returns whether a fresh try may do better."""
        ...


class Static:
    """A proof that never changes: a token, a name and password, a certificate, or nothing."""

    def __init__(self, authorization: str | None = None, certificate: ClientCertificate | None = None) -> None:
        self._authorization = authorization
        self._certificate = certificate

    async def authorization(self) -> str | None:
        return self._authorization

    async def certificate(self) -> ClientCertificate | None:
        return self._certificate

    def refused(self) -> bool:
        return False


class TokenFile:
    """A bearer token in a file that somebody renews."""

    def __init__(self, file: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._monotonic = monotonic
        self._token = ""
        self._read_at = float("-inf")

    async def authorization(self) -> str | None:
        if self._monotonic() - self._read_at >= TOKEN_FILE_AGE_S:
            # A projected volume is memory: reading it takes microseconds, a thread would take longer.
            try:
                self._token = self._file.read_text().strip()
            except (OSError, UnicodeDecodeError) as exc:
                raise errors.Unauthenticated(f"cannot read the token file {self._file}: {exc}") from exc
            if not self._token:
                raise errors.Unauthenticated(f"the token file {self._file} is empty")
            self._read_at = self._monotonic()
        return f"Bearer {self._token}"

    async def certificate(self) -> ClientCertificate | None:
        return None

    def refused(self) -> bool:
        self._read_at = float("-inf")
        return True


def bearer(token: str) -> str:
    """The Authorization value of a token. Raises Invalid for one that could break out of the header."""
    token = token.strip()
    if not token or not token.isascii() or any(c.isspace() for c in token):
        raise errors.Invalid("the bearer token is empty or has characters that no token has")
    return f"Bearer {token}"


def basic(user: str, password: str) -> str:
    """The Authorization value of a name and password (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
