"""How results are printed: machine output on stdout, everything for people on stderr. Used by `commands/`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from services.cli.hub import Hub

F = TypeVar("F", bound=Callable[..., Any])


def output_option(*formats: str) -> Callable[[F], F]:
    """The option `-o`; without it a command prints its table or sentence."""
    return click.option(
        "-o", "--output", "output", type=click.Choice(formats), help="Print objects of the API instead of a table."
    )


def note(text: str) -> None:
    """A sentence for a person; never part of what a script reads."""
    click.echo(text, err=True)


def print_document(document: Any, form: str) -> None:
    """An API object or list, unchanged, as `json` or `yaml`."""
    if form == "json":
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    import yaml

    click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)


def printable(text: str) -> str:
    """Names, paths and descriptions come from whoever chose them: nothing in them may steer this terminal, or look like a line of its own."""
    return "".join(c if c.isprintable() else "�" for c in text)


def render_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns with three blanks between, as kubectl prints them."""
    lines = [list(columns), *[[printable(cell) for cell in row] for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def print_list(hub: Hub, plural: str, form: str | None, *, fields: str = "", labels: str = "", empty: str = "") -> None:
    """A list of one kind: the hub's own table, or the objects."""
    from services.cli import resources

    if form in (None, "wide"):
        columns, rows = resources.table(hub, plural, fields=fields, labels=labels, wide=form == "wide")
        if rows:
            click.echo(render_table(columns, rows))
        else:
            note(empty or f"no {plural}")
        return
    items = list(resources.list_items(hub, plural, fields=fields, labels=labels))
    if form == "name":
        for item in items:
            click.echo(f"{plural}/{item['metadata']['name']}")
        return
    assert form is not None
    print_document({"apiVersion": resources.API_VERSION, "kind": "List", "items": items}, form)


def has_terminal() -> bool:
    """Whether a person can be asked: both ends of the conversation are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def has_colour(stream_is_tty: bool) -> bool:
    """Colour only on a terminal, and never against NO_COLOR (no-color.org) or TERM=dumb."""
    return stream_is_tty and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def confirm(question: str, yes: bool, hint: str = "--yes") -> None:
    """Go on only after a clear yes; without a terminal the option is the only way. Raises UsageError, Abort."""
    if yes:
        return
    if not has_terminal():
        raise click.UsageError(f"this needs a confirmation and there is no terminal to ask on: add {hint}")
    click.confirm(question, abort=True, err=True)


def ask_password(prompt: str, option: str, *, twice: bool = False) -> str:
    """A password typed by a person. Raises UsageError without a terminal."""
    if not has_terminal():
        raise click.UsageError(f"there is no terminal to ask for the password on: add {option} FILE (- for stdin)")
    answer: str = click.prompt(prompt, hide_input=True, confirmation_prompt=twice, err=True)
    return answer
