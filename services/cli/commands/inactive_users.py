"""`herdsman user list --inactive-for`: who has not been seen for so long, and would be disabled by a policy of that time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from services.cli import output as out
from services.cli import resources
from services.cli.hub import Document


def last_seen(user: Document) -> datetime:
    """The last sign-in or use of a token, being made, or being enabled again after a while: as the hub counts."""
    status, said = user.get("status") or {}, resources.condition(user, "Inactive")
    moments = [
        (user.get("metadata") or {}).get("creationTimestamp"), status.get("lastLogin"), status.get("lastActivityTime"),
        said.get("lastTransitionTime") if said.get("status") == "False" else None,
    ]  # fmt: skip
    found = [datetime.fromisoformat(moment) for moment in moments if moment]
    return max(found, default=datetime.min.replace(tzinfo=UTC))


def find_inactive(users: Sequence[Document], since: datetime) -> list[Document]:
    """Enabled users who were not seen since then, those not seen longest first."""
    idle = [user for user in users if (user.get("spec") or {}).get("enabled", True) and last_seen(user) <= since]
    return sorted(idle, key=lambda user: (last_seen(user), user["metadata"]["name"]))


def print_inactive(users: Sequence[Document], since: datetime, form: str | None) -> None:
    """As `herdsman user list` prints; the table says since when, and who is kept whatever the policy says."""
    found = find_inactive(users, since)
    if form == "name":
        for user in found:
            click.echo(f"users/{user['metadata']['name']}")
    elif form in ("json", "yaml"):
        out.print_document({"apiVersion": resources.API_VERSION, "kind": "List", "items": found}, form)
    elif found:
        rows = [
            [user["metadata"]["name"], _kind(user), last_seen(user).strftime("%Y-%m-%dT%H:%M:%SZ"), _kept(user)]
            for user in found
        ]
        click.echo(out.render_table(["NAME", "KIND", "LAST ACTIVITY", "KEPT"], rows))
    if form in (None, "wide"):
        out.note(
            f"{len(found)} of {len(users)} users; a policy never disables the last administrator, nor who is kept"
            if found
            else "nobody was inactive for so long"
        )


def _kind(user: Document) -> str:
    return "service" if user["spec"].get("service") else "person"


def _kept(user: Document) -> str:
    return "keepWhenInactive" if user["spec"].get("keepWhenInactive") else "<none>"
