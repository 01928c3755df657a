"""What each method works with that changes projects and is no plain write of the object: `moves`, `namespaces`, `templates`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from libs.common.access.live import HasGrants
from libs.common.apiserver import rights as api_rights
from libs.common.apiserver.strategy import WriteContext
from libs.common.crypto.envelope import Verifier
from libs.common.store.base import Store
from services.project.claims import Claims
from services.project.strategies import ProjectStrategy


class Asked(Protocol):
    """A request that carries who asks."""

    identity: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Means:
    store: Store
    claims: Claims
    strategy: ProjectStrategy
    verifier: Verifier
    grants: HasGrants
    now: Callable[[], datetime]

    def open(self, request: Asked, verb: str, *, dry_run: bool = False) -> WriteContext:
        """Who asks, with the rights of this moment. Raises Unauthenticated, and Denied to who may write nothing at all."""
        principal = self.verifier.open(request.identity)
        api_rights.check_caller(principal, verb)
        return WriteContext(
            principal=principal, grants=self.grants.current, now=self.now(), verb=verb, dry_run=dry_run,
            request_id=request.request_id,
        )  # fmt: skip
