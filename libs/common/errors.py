"""The error families of Herdsman, and their one translation for HTTP, the bus and reconcilers.

An error is a sentence for a person plus a code for a machine, made where the facts are known. Everything that crosses a
process boundary is one of these families; anything else is a bug and is answered as `Internal` with generic text.
Towards Kubernetes clients an error becomes a `Status` object (Kubernetes API conventions, "Response Status Kind").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Cause:
    """One field that is wrong: `field` is a JSON path such as `spec.rules[0].verbs`; `reason` a StatusCause reason."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


class HerdsmanError(Exception):
    """Base of all families. `message` is one line without secrets; `details` are the facts it was built from."""

    http_status: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"

    def __init__(
        self,
        message: str,
        *,
        kind: str = "",
        name: str = "",
        causes: Sequence[Cause] = (),
        retry_after_s: int | None = None,
        why: str = "",
    ) -> None:
        """`why`: the cause in one word for the audit log; it goes to no caller and not over the bus."""
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.name = name
        self.causes = tuple(causes)
        self.retry_after_s = retry_after_s
        self.why = why

    def to_status(self, group: str = "") -> dict[str, Any]:
        """The `Status` object of this error, ready for JSON."""
        details: dict[str, Any] = {}
        if self.name:
            details["name"] = self.name
        if group:
            details["group"] = group
        if self.kind:
            details["kind"] = self.kind
        if self.causes:
            details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in self.causes]
        if self.retry_after_s is not None:
            details["retryAfterSeconds"] = self.retry_after_s
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.http_status,
        }
        if details:
            status["details"] = details
        return status

    def to_wire(self) -> dict[str, Any]:
        """The form in which an error crosses the bus; `from_wire` is its inverse. For families and their subclasses."""
        return {
            # A subclass crosses as the family that it belongs to: the far side may not know it.
            "family": next(c.__name__ for c in type(self).__mro__ if FAMILIES.get(c.__name__) is c),
            "message": self.message,
            "kind": self.kind,
            "name": self.name,
            "causes": [[c.field, c.message, c.reason] for c in self.causes],
            "retry_after_s": self.retry_after_s,
        }


class BadRequest(HerdsmanError):
    """The request cannot be understood: syntax, an unknown field, an unknown parameter."""

    http_status = 400
    reason = "BadRequest"


class Unauthenticated(HerdsmanError):
    """Nobody knows who is calling. The message never says which part of a credential was wrong."""

    http_status = 401
    reason = "Unauthorized"


class SecondFactorNeeded(HerdsmanError):
    """The password is right and a one-time code is asked for, too: send all again with one."""

    http_status = 401
    reason = "SecondFactorNeeded"


class Denied(HerdsmanError):
    """The caller is known and may not. Where existence is secret, raise NotFound instead."""

    http_status = 403
    reason = "Forbidden"


class NotFound(HerdsmanError):
    http_status = 404
    reason = "NotFound"


class MethodNotAllowed(HerdsmanError):
    http_status = 405
    reason = "MethodNotAllowed"


class NotAcceptable(HerdsmanError):
    http_status = 406
    reason = "NotAcceptable"


class AlreadyExists(HerdsmanError):
    http_status = 409
    reason = "AlreadyExists"


class Conflict(HerdsmanError):
    """The object changed since it was read: read again, apply the change again."""

    http_status = 409
    reason = "Conflict"


class Expired(HerdsmanError):
    """A continue token or resourceVersion is older than what is kept: list again."""

    http_status = 410
    reason = "Expired"


class TooLarge(HerdsmanError):
    http_status = 413
    reason = "RequestEntityTooLarge"


class UnsupportedMediaType(HerdsmanError):
    http_status = 415
    reason = "UnsupportedMediaType"


class Invalid(HerdsmanError):
    """Understood, and wrong: one cause for each field."""

    http_status = 422
    reason = "Invalid"


class TooManyRequests(HerdsmanError):
    http_status = 429
    reason = "TooManyRequests"


class Internal(HerdsmanError):
    """A bug of ours. The text is generic; the log has the trace."""


class Unavailable(HerdsmanError):
    """Something that we need does not answer. `retry_after_s` only for short overload: kubectl retries eleven times on it."""

    http_status = 503
    reason = "ServiceUnavailable"


class Timeout(HerdsmanError):
    """No answer in time: the outcome is unknown, which is not the same as failed."""

    http_status = 504
    reason = "Timeout"


FAMILIES: Mapping[str, type[HerdsmanError]] = {
    family.__name__: family
    for family in (
        BadRequest, Unauthenticated, SecondFactorNeeded, Denied, NotFound, MethodNotAllowed, NotAcceptable, AlreadyExists, Conflict, Expired,
        TooLarge, UnsupportedMediaType, Invalid, TooManyRequests, Internal, Unavailable, Timeout,
    )
}  # fmt: skip

RETRYABLE = (Unavailable, Timeout, TooManyRequests, Conflict)
"""Families after which the same attempt may succeed later; a consumer naks them, a reconciler backs off."""


def from_wire(wire: Mapping[str, Any]) -> HerdsmanError:
    """The error that `to_wire` described; a family that this version does not know becomes `Internal`."""
    family = FAMILIES.get(str(wire.get("family")), Internal)
    return family(
        str(wire.get("message", "internal error")),
        kind=str(wire.get("kind", "")),
        name=str(wire.get("name", "")),
        causes=[Cause(*map(str, c)) for c in wire.get("causes", ())],
        retry_after_s=wire.get("retry_after_s"),
    )


def not_found(kind: str, name: str) -> NotFound:
    return NotFound(f'{kind} "{name}" not found', kind=kind, name=name)
