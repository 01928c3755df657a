"""`herdsman completion SHELL`: the script that a shell loads to complete our commands and options."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "fish", "zsh"]))
def completion(shell: str) -> None:
    """Print a completion script.

    \b
    Use:
      bash   eval "$(herdsman completion bash)" in ~/.bashrc
      zsh    eval "$(herdsman completion zsh)" in ~/.zshrc
      fish   herdsman completion fish > ~/.config/fish/completions/herdsman.fish
    """
    from click.shell_completion import get_completion_class

    from services.cli.main import cli

    maker = get_completion_class(shell)
    assert maker is not None, f"click completes no {shell}"
    click.echo(maker(cli, {}, "herdsman", "_HERDSMAN_COMPLETE").source())
