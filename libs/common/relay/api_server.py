"""Where an API server is and by which credential it is spoken to, kept ready: a relay never waits for a token or a certificate.

The agent and the front door's direct clusters run one `ApiServer` for each endpoint; `terminal` asks `address` and `authorization`.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Protocol
from urllib.parse import urlsplit

import structlog

from libs.common import errors
from libs.common.relay.pool import Address

REFRESH_EVERY_S = 10.0
_REFUSED_PAUSE_S = 2.0
"""At least so long between two refreshes that refusals ask for: a program that prints tokens is not run for every call."""
CREDENTIAL_UNREADABLE = "api_server_credential_unreadable"
log = structlog.get_logger(component="relay")


class Credential(Protocol):
    """What is needed of `libs.common.kube.credential.Credential`."""

    async def authorization(self) -> str | None: ...

    async def certificate(self) -> object | None: ...

    def refused(self) -> bool: ...


class Endpoint(Protocol):
    """What is needed of `libs.common.kube.endpoint.Endpoint`."""

    @property
    def url(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def base_path(self) -> str: ...
    @property
    def server_name(self) -> str: ...
    @property
    def credential(self) -> Credential: ...

    async def ssl_context(self) -> ssl.SSLContext | None: ...


class ApiServer:
    """Invariant: what `address` and `authorization` give was good at the last look, which is at most some seconds old."""

    def __init__(self, name: str, endpoint: Endpoint) -> None:
        """`name` is what errors call it. Raises Invalid for an endpoint that nothing can be relayed to."""
        if urlsplit(endpoint.url).path not in ("", "/"):
            raise errors.Invalid(
                f"the API server's URL {endpoint.url} has a path: the hub can only reach one at the root of its address"
            )
        self._name = name
        self._endpoint = endpoint
        self._certificate: object | None = None
        self._address: Address | None = None
        self._authorization = b""
        self._asked = asyncio.Event()
        self.problem = ""
        """Why there is no fresh credential; empty when there is one."""

    def address(self) -> Address:
        """Where new connections go. Raises Unavailable while there has been no credential."""
        if self._address is None:
            raise errors.Unavailable(
                f"there is no credential for {self._name}: {self.problem or 'it was not read yet'}"
            )
        return self._address

    def authorization(self) -> bytes:
        """The value of the Authorization header; b"" when a client certificate is the proof."""
        return self._authorization

    def refused(self) -> None:
        """The API server answered 401: look for a better credential soon."""
        if self._endpoint.credential.refused():
            self._asked.set()

    async def refresh(self) -> None:
        """Ask for the credential. What was there is kept when none is to be had: the API server says if it is no good any more."""
        try:
            secret = await self._endpoint.credential.authorization() or ""
            if not (secret.isascii() and secret.isprintable()):
                raise errors.Invalid("the credential holds characters that no header may hold")
            certificate = await self._endpoint.credential.certificate()
            if self._address is None or certificate != self._certificate:
                self._address = await self._make_address()
                self._certificate = certificate
            self._authorization = secret.encode("ascii")
        except errors.HerdsmanError as exc:
            if exc.message != self.problem:
                log.error(CREDENTIAL_UNREADABLE, api_server=self._name, error=exc.message)
            self.problem = exc.message
        else:
            self.problem = ""

    async def run(self) -> None:
        """Refresh now and then, and soon after a refusal; for ever."""
        while True:
            try:
                async with asyncio.timeout(REFRESH_EVERY_S):
                    await self._asked.wait()
                await asyncio.sleep(_REFUSED_PAUSE_S)
            except TimeoutError:
                pass  # nobody asked: it is time anyway
            self._asked.clear()
            await self.refresh()

    async def _make_address(self) -> Address:
        endpoint = self._endpoint
        context = await endpoint.ssl_context()
        return Address(
            self._name, endpoint.host, endpoint.port, tls=context,
            server_hostname=(endpoint.server_name or endpoint.host) if context else None,
        )  # fmt: skip
