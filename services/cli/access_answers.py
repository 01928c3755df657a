"""The answer of an access review for people, and for spreadsheets. Used by `commands/access`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import click

from services.cli import output as out
from services.cli.hub import Document

_TABLE = ("WHO", "CAN", "WHERE", "WHY", "UNTIL")
MAX_TOLD = 4
"""Rights that a line of the table names; the exports have all."""
CSV_FIELDS = (
    "user",
    "principal",
    "group",
    "how",
    "rights",
    "onlyNames",
    "where",
    "binding",
    "role",
    "inherits",
    "notAfter",
)
"""The columns of an export, after `change`: the fields of an entry; lists with a blank and a semicolon between."""


def print_answer(review: Document, form: str | None, nothing: str) -> None:
    """A table and what it does not say; or the object; or CSV."""
    if form in ("json", "yaml"):
        out.print_document(review, form)
        return
    status = review.get("status") or {}
    if form == "csv":
        click.echo(render_csv(status), nl=False)
    else:
        changes = (review.get("spec") or {}).get("whatIf") is not None
        rows = [[*([change] if changes else []), *_row(path)] for change, path in _entries(status)]
        if rows:
            click.echo(out.render_table([*(["CHANGE"] if changes else []), *_TABLE], rows))
        for role in status.get("roles") or ():
            for change in ("gained", "lost"):
                for text in role.get(change) or ():
                    click.echo(f"role {role['role']} {change}: {text}")
        if not rows and not status.get("roles") and not status.get("everybody"):
            out.note(nothing)
    if status.get("everybody"):
        out.note("whoever is signed in may do it, without any binding")
    for text in status.get("notes") or ():
        out.note(f"note: {text}")
    if status.get("omitted"):
        out.note(f"note: {status['omitted']} more were left out")
    if status.get("incomplete"):
        out.note("note: you see only what you may see of bindings, groups and users; there may be more")


def render_csv(status: Document) -> str:
    """A line for each entry; `change` is empty, gained or lost."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["change", *CSV_FIELDS])
    for change, path in _entries(status):
        writer.writerow([change, *(_cell(path.get(name)) for name in CSV_FIELDS)])
    return text.getvalue()


def _entries(status: Document) -> Iterator[tuple[str, Document]]:
    for change, field in (("", "paths"), ("gained", "gained"), ("lost", "lost")):
        yield from ((change, path) for path in status.get(field) or ())


def _row(path: Document) -> list[str]:
    told = list(path.get("rights") or ())
    rights = ", ".join(told[:MAX_TOLD]) + (f" and {len(told) - MAX_TOLD} more" if len(told) > MAX_TOLD else "")
    if path.get("onlyNames"):
        rights += f" named {', '.join(path['onlyNames'])}"
    if path.get("how"):
        rights = f"{path['how']} ({rights})"
    chain = [f"group {path['group']}" if path.get("group") else "", " > ".join(path.get("inherits") or [path["role"]])]
    why = " > ".join(part for part in chain if part)
    return [
        path.get("user") or path["principal"],
        rights or path["role"],
        path["where"],
        f"{why} ({path['binding']})",
        path.get("notAfter") or "-",
    ]


def _cell(value: object) -> str:
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value or "")
    # Spreadsheets take what begins so for a formula.
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text
