"""One call on its way through the gateway: who calls, with which envelope, and the parameters that several handlers read."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from libs.common import errors
from libs.common.access.principal import Principal

_TRUE, _FALSE = ("true", "1", "True", "t", "T", "TRUE"), ("false", "0", "False", "f", "F", "FALSE", "")


@dataclass(frozen=True, slots=True)
class Call:
    """`known` is None on public routes when nobody signed in."""

    request: web.Request
    request_id: str
    envelope: str = ""
    known: Principal | None = None

    @property
    def principal(self) -> Principal:
        """Who calls. Raises Unauthenticated."""
        if self.known is None:
            raise errors.Unauthenticated("you must be signed in: run `herdsman login`")
        return self.known

    @property
    def address(self) -> str:
        """The client's address as the front door saw it, else that of the connection."""
        forwarded = self.request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
        return forwarded or self.request.remote or "local"

    def query(self, name: str) -> str:
        return self.request.query.get(name, "")

    def path(self, name: str) -> str:
        return self.request.match_info.get(name, "")

    def is_set(self, name: str) -> bool:
        """A boolean query parameter. Raises BadRequest for anything else."""
        text = self.query(name)
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        raise errors.BadRequest(f"the parameter {name} must be true or false, not {text!r}")

    @property
    def is_watch(self) -> bool:
        """Whether a collection is to be followed. Raises BadRequest for a no that an API server takes for a yes, and the audit log as well:
        a list would be written down as a watch."""
        if self.request.query.get("watch") in ("", "f", "F"):
            raise errors.BadRequest("the parameter watch must be true or false")
        return self.is_set("watch")

    def number(self, name: str) -> int | None:
        """A query parameter that is a number and not negative, None when it is absent. Raises BadRequest."""
        text = self.query(name)
        if not text:
            return None
        if not (text.isascii() and text.isdigit()) or len(text) > 18:
            raise errors.BadRequest(f"the parameter {name} must be a number that is not negative, not {text!r}")
        return int(text)
