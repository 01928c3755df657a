"""What every resource shares: metadata, conditions, and the base model that fixes how documents look.

Shapes and rules follow the Kubernetes API conventions ("Objects", "Typical status properties").
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

GROUP = "management.herdsman.dev"
VERSION = "v1"
API_VERSION = f"{GROUP}/{VERSION}"

_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def check_name(name: str) -> str:
    """A DNS-1123 subdomain, as Kubernetes wants object names. Raises ValueError."""
    if len(name) > 253 or not _DNS_SUBDOMAIN.fullmatch(name):
        raise ValueError(
            "must be a lower-case RFC 1123 name: letters, digits, '-' and '.', at most 253 characters, "
            "starting and ending with a letter or digit"
        )
    return name


def check_label(name: str) -> str:
    """A DNS-1123 label: for names that become part of a path, a NATS subject or a group name. Raises ValueError."""
    if len(name) > 63 or not _DNS_LABEL.fullmatch(name):
        raise ValueError(
            "must be a lower-case RFC 1123 label: letters, digits and '-', at most 63 characters, "
            "starting and ending with a letter or digit"
        )
    return name


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as Kubernetes' `metav1.Time` prints it."""
    # Not strftime's %Y: that prints the year 1 as "1", which nobody reads back.
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def check_time(moment: datetime) -> datetime:
    """A moment that UTC has, too: 9999-12-31T23:00:00-05:00 can be compared and never be written down. Raises ValueError."""
    try:
        moment.astimezone(UTC)
    except OverflowError as exc:
        raise ValueError("must be a moment between the years 1 and 9999 of UTC") from exc
    return moment


Time = Annotated[
    AwareDatetime, AfterValidator(check_time), PlainSerializer(format_time, return_type=str, when_used="json")
]
Name = Annotated[str, AfterValidator(check_name)]
Label = Annotated[str, AfterValidator(check_label)]


class Model(BaseModel):
    """Base of every part of a document: camelCase outside, snake_case inside.

    Readers ignore unknown fields, so that an older version reads what a newer one wrote; writers refuse them before
    they come here (`unknown.find_unknown_fields`).
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", validate_assignment=False
    )

    def to_document(self) -> dict[str, Any]:
        """A JSON-ready dict with camelCase keys, without nulls."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class OwnerReference(Model):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ManagedFieldsEntry(Model):
    """One manager's set of fields; `fieldsV1` in the format of server-side apply."""

    manager: str
    operation: Literal["Apply", "Update"]
    api_version: str = API_VERSION
    time: Time | None = None
    fields_type: str = "FieldsV1"
    fields_v1: dict[str, Any] = Field(default_factory=dict, alias="fieldsV1")
    subresource: str | None = None


class ObjectMeta(Model):
    """`name` names an object while it lives, `uid` names it for ever; `resourceVersion` is the stream sequence of its last write."""

    name: str | None = None
    generate_name: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: list[str] | None = None
    owner_references: list[OwnerReference] | None = None
    managed_fields: list[ManagedFieldsEntry] | None = None


class Condition(Model):
    """As `metav1.Condition`: `type` in CamelCase, the message stable and useful to a person."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: Time
    observed_generation: int | None = None


class Resource(Model):
    """Base of all kinds. `private` is stored with the object and is never part of an API answer (`codec`)."""

    KIND: ClassVar[str]

    api_version: str = API_VERSION
    kind: str = ""
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)

    def model_post_init(self, _context: Any) -> None:
        self.kind = type(self).KIND

    @property
    def name(self) -> str:
        """The object's name; every stored object has one."""
        return self.metadata.name or ""

    @property
    def uid(self) -> str:
        """The object's uid; every stored object has one."""
        return self.metadata.uid or ""

    @property
    def deleting(self) -> bool:
        """True from the delete request until the last finalizer is gone."""
        return self.metadata.deletion_timestamp is not None


class ConditionedStatus(Model):
    """Base of every status: what was seen of which generation, and the conditions, at most one for each type."""

    observed_generation: int | None = None
    conditions: list[Condition] = Field(default_factory=list)

    def condition(self, type_: str) -> Condition | None:
        return next((c for c in self.conditions if c.type == type_), None)

    def set_condition(
        self, type_: str, ok: bool | None, reason: str, message: str, now: datetime, generation: int | None = None
    ) -> bool:
        """Set one condition; the transition time moves only when the status does. Returns whether anything changed."""
        status: Literal["True", "False", "Unknown"] = "Unknown" if ok is None else "True" if ok else "False"
        before = self.condition(type_)
        if before is not None and (before.status, before.reason, before.message, before.observed_generation) == (
            status, reason, message, generation,
        ):  # fmt: skip
            return False
        since = before.last_transition_time if before is not None and before.status == status else now
        fresh = Condition(
            type=type_, status=status, reason=reason, message=message,
            last_transition_time=since, observed_generation=generation,
        )  # fmt: skip
        self.conditions = sorted([c for c in self.conditions if c.type != type_] + [fresh], key=lambda c: c.type)
        return True
