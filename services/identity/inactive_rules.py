"""When a user was last active, and for how long nobody may be without being disabled. Pure; `inactive`, `strategies` and `activity` call it.

The condition `Inactive` of a user: True = disabled by this policy, and why; False = enabled again by somebody, from when on a new period counts.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from libs.common.resources.identity import User
from libs.common.resources.meta import format_time
from libs.common.resources.providers import LocalSettings, parse_period

INACTIVE = "Inactive"
GRAIN = timedelta(hours=1)
"""A user's last activity is written no more often than this, and no more than four times within the period of the policy."""
LATE = timedelta(seconds=120)
"""So late identity may learn of the use of a token: from the front door's reports, and another replica's batches."""
GRACE = timedelta(days=1)
SHORT = timedelta(days=1)
"""Shorter periods hit people who sleep: allowed, with a warning."""
_NEVER = datetime.min.replace(tzinfo=UTC)


def last_active(user: User) -> datetime:
    """The last sign-in, use of a token, or new beginning: who never signed in counts from when they were made."""
    said = user.status.condition(INACTIVE)
    moments = (
        user.metadata.creation_timestamp, user.status.last_login, user.status.last_activity_time,
        said.last_transition_time if said is not None and said.status == "False" else None,
    )  # fmt: skip
    return max((moment for moment in moments if moment is not None), default=_NEVER)


def period_of(user: User, settings: LocalSettings) -> timedelta | None:
    """How long this user may be inactive; None = for ever."""
    if not user.spec.enabled or user.deleting or user.spec.keep_when_inactive:
        return None
    return parse_period(
        settings.disable_inactive_services_after if user.spec.service else settings.disable_inactive_after
    )


def ends_at(user: User, settings: LocalSettings, last: datetime) -> datetime | None:
    """When a user who was last active then is to be disabled; None = never."""
    period = period_of(user, settings)
    return None if period is None else last + period + min(LATE, period / 4)


def grain_of(settings: LocalSettings) -> timedelta:
    """How coarsely activity is written, so that it is fine enough for the policy."""
    periods = map(parse_period, (settings.disable_inactive_after, settings.disable_inactive_services_after))
    return min([GRAIN, *(period / 4 for period in periods if period is not None)])


def grace_of(settings: LocalSettings) -> timedelta:
    """How long whoever looks has to be there before anybody is disabled: after an outage or a restore people have so long to come back."""
    periods = map(parse_period, (settings.disable_inactive_after, settings.disable_inactive_services_after))
    return min([GRACE, *(period / 4 for period in periods if period is not None)])


def disable(user: User, settings: LocalSettings, last: datetime, now: datetime) -> None:
    """Disable, and say why and what to do."""
    field = "disableInactiveServicesAfter" if user.spec.service else "disableInactiveAfter"
    period = settings.disable_inactive_services_after if user.spec.service else settings.disable_inactive_after
    user.spec.enabled = False
    user.status.set_condition(
        INACTIVE, True, "NotUsed",
        f'disabled because nobody signed in as this user or used a token of it since {format_time(last)}: {field} of the provider "local" is {period}. '
        f"To let in again, for a new period: herdsman user enable {user.name}",
        now, (user.metadata.generation or 0) + 1,
    )  # fmt: skip


def begin_again(user: User, now: datetime) -> None:
    """Somebody enabled the user: a full new period counts from now."""
    user.status.conditions = [c for c in user.status.conditions if c.type != INACTIVE]
    user.status.set_condition(
        INACTIVE, False, "EnabledAgain", "enabled by an administrator: the time without use counts from then on", now,
        user.metadata.generation,
    )  # fmt: skip


def warn_of_short(settings: LocalSettings) -> list[str]:
    """Sentences for whoever sets a period that is shorter than people expect."""
    return [
        f"spec.local.{field}: {text} is shorter than a day: whoever is away for a night is disabled"
        for field, text in (
            ("disableInactiveAfter", settings.disable_inactive_after),
            ("disableInactiveServicesAfter", settings.disable_inactive_services_after),
        )
        if (period := parse_period(text)) is not None and period < SHORT
    ]  # fmt: skip
