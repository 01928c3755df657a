"""What is special about one kind: the hooks that the writer calls. Each owner has one subclass for each kind that it owns.

Hooks see whole, valid models; they never touch resourceVersion, uid, generation or managedFields, which the writer keeps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Generic, TypeVar

from libs.common.access.grants import Grants
from libs.common.access.principal import Principal
from libs.common.resources.meta import Resource
from libs.common.store.base import Put

R = TypeVar("R", bound=Resource)


@dataclass(slots=True)
class WriteContext:
    """One write in progress. `warnings` go back to the client as `Warning` headers: append to it."""

    principal: Principal
    grants: Grants
    now: datetime
    verb: str
    """create, update, patch or delete, as the client asked."""
    subresource: str = ""
    dry_run: bool = False
    request_id: str = ""
    warnings: list[str] = field(default_factory=list)


class Strategy(Generic[R]):
    """Base with hooks that change and refuse nothing. Hooks may run several times for one write (patches retry)."""

    model: type[R]
    name_is_label: ClassVar[bool] = False
    """True where the name becomes part of a path, a subject or a group name."""

    async def prepare(self, ctx: WriteContext, old: R | None, new: R) -> R:
        """`new` with defaults and the fields that the hub fills in. `new.status` and `new.private` are those of `old` already."""
        return new

    async def admit(self, ctx: WriteContext, old: R | None, new: R) -> None:
        """Business validation and escalation checks. Raises Invalid, Denied or Conflict; has no effect."""

    async def admit_delete(self, ctx: WriteContext, old: R) -> None:
        """Whether it may go now. Raises Invalid, Denied or Conflict; has no effect."""

    async def extra_puts(self, ctx: WriteContext, old: R | None, new: R | None) -> list[Put]:
        """Other keys of the same bucket that are written with it, all or none; `new` None = deleted. May read the store.

        Raises Conflict when that cannot be; a put whose revision is no longer right makes the whole write try again, as the object's own does.
        """
        return []

    async def after_write(self, ctx: WriteContext, old: R | None, new: R | None) -> None:
        """After a write that is durable; `new` None = deleted. Must not be needed: a reconciler does the same after a crash."""
