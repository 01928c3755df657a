"""Everything of one kind, now and from now on: a paged listing, then a watch that resumes, then a listing again when it can't.

It keeps no object, only the resourceVersion where it stands: what is remembered is the caller's business.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import structlog

from libs.common import errors
from libs.common.kube.client import JSON, METADATA, METADATA_LIST, PAGE_SIZE, KubeClient

WATCH_FAILED = "kube_watch_failed"
_BACKOFF_S = (0.5, 30.0)
_QUICK_END_S = 1.0
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Listed:
    """One page of a complete listing; `first` opens a listing, `last` closes it: whatever no page held is gone."""

    items: list[dict[str, Any]]
    first: bool
    last: bool


@dataclass(frozen=True, slots=True)
class Changed:
    object: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Deleted:
    object: dict[str, Any]


Seen = Listed | Changed | Deleted


class Reflector:
    """`healthy` says whether the last request was answered; a caller may show it. `listed_at`: resourceVersion of the newest listing."""

    def __init__(
        self, client: KubeClient, path: str, *, selector: str = "", metadata_only: bool = False, page: int = PAGE_SIZE
    ) -> None:
        self._client = client
        self._path = path
        self._selector = selector
        self._list_as = METADATA_LIST if metadata_only else JSON
        self._watch_as = METADATA if metadata_only else JSON
        self._page = page
        self._version = ""
        self.listed_at = ""
        self.healthy = False

    async def run(self) -> AsyncIterator[Seen]:
        """For ever. Failures are logged and tried again with growing, jittered pauses; nothing but cancellation ends it."""
        attempt = 0
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                if not self._version:
                    async for listed in self._list():
                        yield listed
                self.healthy = True
                async for seen in self._watch():
                    attempt = 0
                    yield seen
                # The server ends each watch by itself after minutes; one that ends at once must not become a busy loop.
                attempt = attempt + 1 if loop.time() - started < _QUICK_END_S else 0
            except errors.Expired:
                self._version = ""
                attempt += 1
            except errors.HerdsmanError as exc:
                self.healthy = False
                attempt += 1
                log.warning(WATCH_FAILED, path=self._path, error=exc.message, attempt=attempt)
            if attempt:
                low, high = _BACKOFF_S
                await asyncio.sleep(random.uniform(low / 2, min(high, low * 2.0 ** min(attempt, 10))))

    async def _list(self) -> AsyncIterator[Listed]:
        first = True
        version = ""
        async for page in self._client.pages(
            self._path, selector=self._selector, accept=self._list_as, limit=self._page
        ):
            metadata = page.get("metadata") or {}
            version = str(metadata.get("resourceVersion") or "")
            self.listed_at = version
            last = not metadata.get("continue")
            yield Listed(page.get("items") or [], first, last)
            first = False
        self._version = version

    async def _watch(self) -> AsyncIterator[Seen]:
        async for event in self._client.watch(
            self._path, self._version, selector=self._selector, accept=self._watch_as
        ):
            self.healthy = True
            version = event.resource_version
            if event.type in ("ADDED", "MODIFIED"):
                yield Changed(event.object)
            elif event.type == "DELETED":
                yield Deleted(event.object)
            # Only after the caller has taken the event: one that is lost on the way is seen again.
            self._version = version or self._version
