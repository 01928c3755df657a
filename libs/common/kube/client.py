"""Requests to one API server: deadlines, jittered retries, typed errors, pages and watches. Documents are plain dicts.

A read, an apply and a delete may be sent again when no answer came, because doing them twice is doing them once; a create
is only sent again when the server said that it did not take it.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from libs.common import errors
from libs.common.kube.answers import WatchEvent, parse_event, parse_warning, read_limited, read_lines
from libs.common.kube.credential import ClientCertificate
from libs.common.kube.endpoint import Endpoint
from libs.common.kube.failures import error_of_answer, error_of_exception

JSON = "application/json"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
APPLY = "application/apply-patch+yaml"  # JSON is YAML, and every server since 1.16 takes it under this name
MERGE = "application/merge-patch+json"

PAGE_SIZE = 500
CONNECT_TIMEOUT_S = 10.0
WATCH_SILENCE_S = 120.0
"""A watch that says nothing for so long is cut and resumed: the server sends a bookmark about once a minute."""
_BACKOFF_S = (0.2, 5.0)

_FAILURES = (aiohttp.ClientError, TimeoutError, OSError)


class KubeClient:
    """Use as an async context manager. Safe for many tasks at once; at most `connections` requests run at a time."""

    def __init__(
        self, endpoint: Endpoint, *, user_agent: str, connections: int = 16, retry_budget_s: float = 30.0,
        as_user: str = "", as_groups: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.endpoint = endpoint
        self._user_agent = user_agent
        self._connections = connections
        self._retry_budget_s = retry_budget_s
        self._identity = (
            [("Impersonate-User", as_user), *(("Impersonate-Group", g) for g in as_groups)] if as_user else []
        )
        self._session: aiohttp.ClientSession | None = None
        self._certificate: ClientCertificate | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(
        self, path: str, params: Mapping[str, str] | None = None, *, accept: str = JSON, timeout_s: float = 30.0
    ) -> dict[str, Any]:
        """GET a document. Raises a family of errors."""
        return await self._call("GET", path, f"read {path}", params=params, accept=accept, timeout_s=timeout_s)

    async def get_text(self, path: str, *, timeout_s: float = 5.0) -> str:
        """GET plain text (health checks), one try."""
        body = await self._once("GET", path, f"read {path}", None, "*/*", None, "", timeout_s)
        return body.decode("utf-8", "replace")

    async def create(
        self,
        path: str,
        document: Mapping[str, Any],
        params: Mapping[str, str] | None = None,
        *,
        timeout_s: float = 30.0,
    ) -> dict[str, Any]:
        """POST a document. Raises AlreadyExists, Timeout when the outcome is unknown."""
        return await self._call(
            "POST", path, f"create in {path}", params=params, body=document, timeout_s=timeout_s, repeatable=False
        )

    async def replace(self, path: str, document: Mapping[str, Any], *, timeout_s: float = 30.0) -> dict[str, Any]:
        """PUT a document; with a resourceVersion in it a compare-and-set. Raises Conflict."""
        return await self._call("PUT", path, f"replace {path}", body=document, timeout_s=timeout_s, repeatable=False)

    async def apply(
        self, path: str, document: Mapping[str, Any], *, manager: str, force: bool = True, timeout_s: float = 30.0
    ) -> dict[str, Any]:
        """Server-side apply. `path` names the object."""
        params = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self._call(
            "PATCH", path, f"apply {path}", params=params, body=document, content_type=APPLY, timeout_s=timeout_s
        )

    async def merge(self, path: str, patch: Mapping[str, Any], *, timeout_s: float = 30.0) -> dict[str, Any]:
        """JSON merge patch."""
        return await self._call("PATCH", path, f"patch {path}", body=patch, content_type=MERGE, timeout_s=timeout_s)

    async def rehearse(
        self, method: str, path: str, document: Mapping[str, Any], *, timeout_s: float = 30.0
    ) -> tuple[list[str], errors.HerdsmanError | None]:
        """A POST, or a PATCH with a merge patch, that changes nothing: what the server warned of, and with what it refused, if it did.

        One try. Raises Unavailable, Timeout, Unauthenticated and TooManyRequests: then the server has not said.
        """
        headers = await self._headers(JSON, MERGE if method == "PATCH" else JSON)
        doing = f"rehearse {method} {path}"
        limits = aiohttp.ClientTimeout(total=timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
        try:
            session = await self._open()
            async with session.request(
                method, self._url(path), params={"dryRun": "All"}, data=json.dumps(document).encode(), headers=headers, timeout=limits,
                allow_redirects=False, **self._extras(),
            ) as answer:  # fmt: skip
                warnings = [text for raw in answer.headers.getall("Warning", ()) if (text := parse_warning(raw))]
                refusal = None if 200 <= answer.status < 300 else await self._refusal(answer, doing)
                if refusal is None:
                    await read_limited(answer, doing)
        except _FAILURES as exc:
            raise error_of_exception(exc, self.endpoint.url, doing) from exc
        if isinstance(refusal, errors.Unavailable | errors.Timeout | errors.Unauthenticated | errors.TooManyRequests):
            raise refusal
        return warnings, refusal

    async def delete(
        self, path: str, *, uid: str = "", propagation: str = "Background", timeout_s: float = 30.0
    ) -> None:
        """Delete an object, only if it still has `uid` when one is given. Returns when it is already gone.

        Raises Conflict when another object lives under the name by now.
        """
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self._call("DELETE", path, f"delete {path}", body=options, timeout_s=timeout_s)
        except errors.NotFound:
            return

    async def pages(
        self,
        path: str,
        *,
        selector: str = "",
        accept: str = JSON,
        limit: int = PAGE_SIZE,
        params: Mapping[str, str] | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """The pages of a list. Raises Expired when the list took so long that the server forgot where it was: start again."""
        query = {**(params or {}), "limit": str(limit)}
        if selector:
            query["labelSelector"] = selector
        while True:
            page = await self.get(path, query, accept=accept)
            yield page
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return
            query["continue"] = str(token)

    async def watch(
        self,
        path: str,
        resource_version: str,
        *,
        selector: str = "",
        accept: str = JSON,
        timeout_s: float | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """One watch connection: events after `resource_version` until the server ends it. Raises Expired when that is too old."""
        lifetime_s = timeout_s if timeout_s is not None else random.uniform(300, 600)
        query = {
            "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": resource_version,
            "timeoutSeconds": str(int(lifetime_s)),
        }  # fmt: skip
        if selector:
            query["labelSelector"] = selector
        doing = f"watch {path}"
        limits = aiohttp.ClientTimeout(total=lifetime_s + 30, connect=CONNECT_TIMEOUT_S, sock_read=WATCH_SILENCE_S)
        try:
            session = await self._open()
            async with session.get(
                self._url(path), params=query, headers=await self._headers(accept), timeout=limits, **self._extras()
            ) as answer:
                if answer.status != 200:
                    raise await self._refusal(answer, doing)
                async for line in read_lines(answer.content):
                    yield parse_event(line, doing)
        except _FAILURES as exc:
            raise error_of_exception(exc, self.endpoint.url, doing) from exc

    async def _call(
        self, method: str, path: str, doing: str, *, params: Mapping[str, str] | None = None, accept: str = JSON,
        body: Mapping[str, Any] | None = None, content_type: str = JSON, timeout_s: float, repeatable: bool = True,
    ) -> dict[str, Any]:  # fmt: skip
        """One request with its retries, as a document."""
        give_up = time.monotonic() + self._retry_budget_s
        attempt = 0
        while True:
            try:
                raw = await self._once(method, path, doing, params, accept, body, content_type, timeout_s)
                break
            except (errors.Unavailable, errors.Timeout, errors.TooManyRequests, errors.Unauthenticated) as exc:
                pause = self._pause_before_retry(exc, attempt, repeatable)
                if pause is None or time.monotonic() + pause > give_up:
                    raise
            attempt += 1
            await asyncio.sleep(pause)
        try:
            document = json.loads(raw)
        except ValueError as exc:
            raise errors.Unavailable(f"cannot {doing}: the answer is no JSON") from exc
        if not isinstance(document, dict):
            raise errors.Unavailable(f"cannot {doing}: the answer is no object")
        return document

    def _pause_before_retry(self, exc: errors.HerdsmanError, attempt: int, repeatable: bool) -> float | None:
        """How long to wait before the same request is sent again; None when it must not be."""
        if isinstance(exc, errors.Unauthenticated):
            return 0.0 if attempt == 0 and self.endpoint.credential.refused() else None
        if not repeatable and not isinstance(exc, errors.TooManyRequests):
            return None
        low, high = _BACKOFF_S
        pause = random.uniform(0, min(high, low * 2.0**attempt))
        return pause if exc.retry_after_s is None else max(pause, float(exc.retry_after_s))

    async def _once(
        self, method: str, path: str, doing: str, params: Mapping[str, str] | None, accept: str,
        body: Mapping[str, Any] | None, content_type: str, timeout_s: float,
    ) -> bytes:  # fmt: skip
        headers = await self._headers(accept, content_type if body is not None else "")
        data = None
        if body is not None:
            data = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        limits = aiohttp.ClientTimeout(total=timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
        try:
            session = await self._open()
            async with session.request(
                method,
                self._url(path),
                params=params,
                data=data,
                headers=headers,
                timeout=limits,
                allow_redirects=False,
                **self._extras(),
            ) as answer:
                if not 200 <= answer.status < 300:
                    raise await self._refusal(answer, doing)
                return await read_limited(answer, doing)
        except _FAILURES as exc:
            raise error_of_exception(exc, self.endpoint.url, doing) from exc

    async def _refusal(self, answer: aiohttp.ClientResponse, doing: str) -> errors.HerdsmanError:
        body = await answer.content.read(64 << 10)
        return error_of_answer(answer.status, body, answer.headers.get("Retry-After", ""), doing)

    async def _headers(self, accept: str, content_type: str = "") -> list[tuple[str, str]]:
        headers = [("Accept", accept), ("User-Agent", self._user_agent), *self._identity]
        if content_type:
            headers.append(("Content-Type", content_type))
        authorization = await self.endpoint.credential.authorization()
        if authorization is not None:
            headers.append(("Authorization", authorization))
        return headers

    async def _open(self) -> aiohttp.ClientSession:
        """The session; a new one when an exec plug-in has changed the client certificate."""
        async with self._opening:
            certificate = await self.endpoint.credential.certificate()
            if self._session is not None and certificate == self._certificate:
                return self._session
            context: ssl.SSLContext | bool = await self.endpoint.ssl_context() or True
            old, self._certificate = self._session, certificate
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context, limit=self._connections, keepalive_timeout=60),
                cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True,
            )  # fmt: skip
            if old is not None:
                await old.close()
            return self._session

    def _url(self, path: str) -> str:
        return f"{self.endpoint.url}{path}"

    def _extras(self) -> dict[str, Any]:
        extras: dict[str, Any] = {}
        if self.endpoint.proxy_url:
            extras["proxy"] = self.endpoint.proxy_url
        if self.endpoint.server_name and urlsplit(self.endpoint.url).scheme == "https":
            extras["server_hostname"] = self.endpoint.server_name
        return extras
