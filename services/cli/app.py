"""What every command gets from `main`: the chosen hub, made only when a command needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from services.cli.hub import Hub
    from services.cli.settings import Server


@dataclass(slots=True)
class App:
    """The root options. `--help` makes one of these and nothing more."""

    context: str | None = None
    verbose: bool = False

    def server(self) -> Server:
        """The hub that this call is for. Raises Unauthenticated when there is none yet."""
        from services.cli.settings import choose_server

        return choose_server(self.context)

    def hub(self, server: Server | None = None) -> Hub:
        """A connection to the chosen hub, or to `server`."""
        from services.cli.hub import Hub

        return Hub(server or self.server(), trace=self._trace if self.verbose else None)

    @staticmethod
    def _trace(line: str) -> None:
        click.echo(f"> {line}", err=True)


pass_app = click.make_pass_decorator(App)
