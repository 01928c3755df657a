"""`herdsman`: the table of commands, and the one place where an error becomes a sentence and an exit code.

Exit codes: 0 done, 1 error, 2 wrong usage, 3 not found, 4 denied, 5 time-out; 130 after Ctrl-C. Scripts rely on them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from libs.common import errors
from libs.common.version import VERSION
from services.cli.app import App
from services.cli.lazy import Entry, LazyGroup

_COMMANDS = "services.cli.commands"
TABLE = {
    "up": Entry(f"{_COMMANDS}.up:up", "Run a whole hub on this machine."),
    "login": Entry(f"{_COMMANDS}.session:login", "Sign in to a hub."),
    "logout": Entry(f"{_COMMANDS}.session:logout", "Revoke this sign-in and forget it."),
    "whoami": Entry(f"{_COMMANDS}.session:whoami", "Show who you are to the hub."),
    "password": Entry(f"{_COMMANDS}.session:password", "Change your password, or set another person's."),
    "context": Entry(f"{_COMMANDS}.contexts:context", "List, choose and forget the hubs you signed in to."),
    "kubeconfig": Entry(f"{_COMMANDS}.kubeconfig:kubeconfig", "Get a kubeconfig for your clusters and the hub."),
    "credential": Entry(f"{_COMMANDS}.credential:credential", "Give kubectl a short-lived token (kubectl calls this)."),
    "cluster": Entry(f"{_COMMANDS}.clusters:cluster", "Import, list, show and delete clusters."),
    "node": Entry(f"{_COMMANDS}.nodes:node", "List nodes, show one, and see what happened to it."),
    "user": Entry(f"{_COMMANDS}.users:user", "Create, list, disable and delete users."),
    "provider": Entry(f"{_COMMANDS}.providers:provider", "List, test and search identity providers."),
    "group": Entry(f"{_COMMANDS}.groups:group", "Create, fill, list and delete groups of users."),
    "grant": Entry(f"{_COMMANDS}.grants:grant", "Give a role to a user, for good or for a while."),
    "revoke": Entry(f"{_COMMANDS}.grants:revoke", "Take a role away again."),
    "access": Entry(f"{_COMMANDS}.access:access", "See who can do what and why; ask for a role, approve, deny."),
    "policy": Entry(
        f"{_COMMANDS}.policies:policy", "Security policies: what clusters refuse, and what that would break."
    ),
    "project": Entry(f"{_COMMANDS}.projects:project", "Group namespaces of clusters, with quotas and members."),
    "role": Entry(f"{_COMMANDS}.roles:role", "List, show, create and delete the roles that can be granted."),
    "token": Entry(f"{_COMMANDS}.tokens:token", "List, create, exchange and revoke tokens."),
    "audit": Entry(f"{_COMMANDS}.audit:audit", "See, export and verify who did what."),
    "recordings": Entry(f"{_COMMANDS}.recordings:recordings", "List, play, export and verify recorded sessions."),
    "hub": Entry(f"{_COMMANDS}.hub_ca:hub", "Replace the certificate authority of the hub of this machine."),
    "backup": Entry(f"{_COMMANDS}.backup:backup", "Save the stopped hub of this machine into one file."),
    "restore": Entry(f"{_COMMANDS}.backup:restore", "Bring a hub back from such a file."),
    "doctor": Entry(f"{_COMMANDS}.doctor:doctor", "Find out why something does not work."),
    "completion": Entry(f"{_COMMANDS}.completion:completion", "Print a completion script for your shell."),
    "version": Entry(f"{_COMMANDS}.version:version", "Print the version."),
}

_HELP = """One control plane for many Kubernetes clusters.

\b
Examples:
  herdsman up                                   a whole hub on this machine
  herdsman login https://hub.example:8443       sign in
  herdsman cluster import prod                  bring a cluster in
  herdsman grant --user ana --role cluster-member --cluster prod --for 1h
  herdsman kubeconfig --merge                   then use plain kubectl

\b
Exit codes: 0 done, 1 error, 2 usage, 3 not found, 4 denied, 5 time-out.
"""

EXIT_ERROR, EXIT_USAGE, EXIT_NOT_FOUND, EXIT_DENIED, EXIT_TIMEOUT, EXIT_INTERRUPTED = 1, 2, 3, 4, 5, 130
_EXIT_CODES: tuple[tuple[type[errors.HerdsmanError], int], ...] = (
    (errors.NotFound, EXIT_NOT_FOUND),
    (errors.Denied, EXIT_DENIED),
    (errors.Unauthenticated, EXIT_DENIED),
    (errors.SecondFactorNeeded, EXIT_DENIED),
    (errors.Timeout, EXIT_TIMEOUT),
)


def _root(context: str | None, verbose: bool) -> None:
    click.get_current_context().obj = App(context=context, verbose=verbose)


def _print_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"herdsman {VERSION}")
        context.exit()


cli = LazyGroup(
    "herdsman",
    TABLE,
    help=_HELP,
    callback=_root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    params=[
        click.Option(
            ["--context"], envvar="HERDSMAN_CONTEXT", metavar="NAME", help="Use this hub instead of the current one."
        ),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Print the version.",
        ),
        click.Option(["-v", "--verbose"], is_flag=True, help="Show each request on stderr, without secrets."),
    ],
)


def exit_code(error: errors.HerdsmanError) -> int:
    """The exit code of an error family."""
    return next((code for family, code in _EXIT_CODES if isinstance(error, family)), EXIT_ERROR)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; what went wrong stands on stderr."""
    try:
        result = cli.main(args=list(arguments), prog_name="herdsman", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_USAGE
    except click.ClickException as error:
        usage = isinstance(error, click.UsageError)
        hint = f" (see {error.ctx.command_path} --help)" if isinstance(error, click.UsageError) and error.ctx else ""
        click.echo(f"herdsman: {error.format_message()}{hint}", err=True)
        return EXIT_USAGE if usage else EXIT_ERROR
    except (click.Abort, KeyboardInterrupt):
        click.echo("herdsman: interrupted", err=True)
        return EXIT_INTERRUPTED
    except errors.HerdsmanError as error:
        _show(error)
        return exit_code(error)
    except BrokenPipeError:
        # The reader of our output went away (`herdsman … | head`). Python would complain once more while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except OSError as error:
        # Files that a person named: the operating system's own words say it best.
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"herdsman: {where}{error.strerror or error}", err=True)
        return EXIT_ERROR
    return result if isinstance(result, int) else 0


def _show(error: errors.HerdsmanError) -> None:
    click.echo(f"herdsman: {error.message}", err=True)
    for cause in error.causes:
        if cause.message not in error.message:
            click.echo(f"  {cause.field}: {cause.message}", err=True)


def main() -> None:
    sys.exit(run(sys.argv[1:]))
