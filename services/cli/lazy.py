"""A click group that imports a command's module only when that command runs. Used by `main` and by groups of commands.

Help, completion and "did you mean" work from the table alone, so `herdsman --help` imports no command at all.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem


class Entry(NamedTuple):
    """`target` is `module:function`; `help` is the one line that the group's help shows."""

    target: str
    help: str


class LazyGroup(click.Group):
    """A group whose commands come from a table, in the table's order."""

    def __init__(self, name: str, table: Mapping[str, Entry], **attributes: object) -> None:
        super().__init__(name, **attributes)  # type: ignore[arg-type]  # click's own keywords, passed through
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._table.get(cmd_name)
        if entry is None:
            return None
        module, _, function = entry.target.partition(":")
        command = getattr(importlib.import_module(module), function)
        assert isinstance(command, click.Command), f"{entry.target} is no command"
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self._table and not args[0].startswith("-"):
            ctx.fail(f'no such command "{args[0]}"{self._suggest(args[0])}')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self._table.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [
            CompletionItem(name, help=entry.help) for name, entry in self._table.items() if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def _suggest(self, word: str) -> str:
        import difflib

        close = difflib.get_close_matches(word, self._table, n=1)
        return f'; did you mean "{close[0]}"?' if close else f"; see {self.name or 'herdsman'} --help"
