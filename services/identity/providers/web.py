"""HTTP to a provider: JSON alone, bounded in size and time, no redirects, no cookies, nothing of ours in it. Used by `oidc` and `github`."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlsplit

import aiohttp

from libs.common import errors

MAX_BYTES = 2 * 2**20
_AGENT = "herdsman"


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is what the JSON in it says, None where there was none; header names in lower case."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def object(self) -> dict[str, Any]:
        return self.body if isinstance(self.body, dict) else {}


class Web:
    """One provider's HTTP client; opened at its first call. Every failure to get an answer is Unavailable, with words for an administrator."""

    def __init__(self, name: str, ca: str, timeout_s: float) -> None:
        self._name = name
        self._ca = ca
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def get(
        self, url: str, *, headers: Mapping[str, str] | None = None, user: str = "", password: str = ""
    ) -> Answer:
        return await self._ask("GET", url, {**_basic(user, password), **(headers or {})})

    async def post(self, url: str, form: Mapping[str, str], *, user: str = "", password: str = "") -> Answer:
        """A form; `user` and `password` as HTTP Basic where given."""
        return await self._ask("POST", url, _basic(user, password), data=form)

    async def post_json(self, url: str, document: Mapping[str, Any], *, user: str = "", password: str = "") -> Answer:
        return await self._ask("POST", url, _basic(user, password), json=document)

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(self, method: str, url: str, headers: Mapping[str, str], **body: Any) -> Answer:
        where = urlsplit(url).netloc
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._open().request(
                    method, url, allow_redirects=False, headers={"Accept": "application/json", **headers}, **body
                ) as response,
            ):
                raw = await response.content.read(MAX_BYTES + 1)
                while len(raw) <= MAX_BYTES and not response.content.at_eof():
                    raw += await response.content.read(MAX_BYTES + 1 - len(raw))
        except TimeoutError as exc:
            raise errors.Unavailable(f"{where} did not answer within {self._timeout_s:g} s") from exc
        except aiohttp.ClientConnectorCertificateError as exc:
            raise errors.Unavailable(
                f"the certificate of {where} is not trusted: give its CA as `ca`, or check its name and the clocks"
            ) from exc
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise errors.Unavailable(f"{where} cannot be reached: {type(exc).__name__}") from exc
        if len(raw) > MAX_BYTES:
            raise errors.Unavailable(f"the answer of {where} is larger than {MAX_BYTES} bytes")
        try:
            parsed = json.loads(raw) if raw.strip() else None
        except ValueError:
            parsed = None
        return Answer(response.status, parsed, {name.lower(): value for name, value in response.headers.items()})

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            tls = ssl.create_default_context(cadata=self._ca or None)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls, limit=20), cookie_jar=aiohttp.DummyCookieJar(), headers={"User-Agent": _AGENT},
                trust_env=True,
            )  # fmt: skip
        return self._session


def _basic(user: str, password: str) -> dict[str, str]:
    """RFC 6749 2.3.1: both are form-encoded first."""
    return {"Authorization": aiohttp.encode_basic_auth(quote_plus(user), quote_plus(password))} if user else {}
