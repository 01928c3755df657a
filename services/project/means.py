"""What each method works with that changes projects and is no plain write of the object: `moves`, `namespaces`, `templates`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from libs.common import errors
from libs.common.access.live import HasGrants
from libs.common.access.principal import Principal
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

    def open(self, request: Asked, verb: str) -> WriteContext:
        """Who asks, with the rights of this moment. Raises Unauthenticated, and Denied to who may write nothing at all."""
        return self._ask(self.verifier.open(request.identity), request, verb)

    def open_inside(self, request: Asked, verb: str, cluster: str, *, dry_run: bool = False) -> tuple[WriteContext, list[str]]:  # fmt: skip
        """The same for what is done in one cluster: a token that is good for it is good for that, too. With the projects that the token is limited to."""
        principal = self.verifier.open(request.identity)
        if principal.clusters and cluster not in principal.clusters:
            raise errors.Denied(f'this token is not good for cluster "{cluster[:63]}": use another token')
        unlimited = principal.model_copy(update={"clusters": [], "projects": []})
        return self._ask(unlimited, request, verb, dry_run=dry_run), principal.projects

    def _ask(self, principal: Principal, request: Asked, verb: str, *, dry_run: bool = False) -> WriteContext:
        api_rights.check_caller(principal, verb)
        return WriteContext(
            principal=principal, grants=self.grants.current, now=self.now(), verb=verb, dry_run=dry_run,
            request_id=request.request_id,
        )  # fmt: skip
