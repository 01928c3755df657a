"""`herdsman access request|approve|deny|withdraw|list` and `access policy`: roles for a while, asked for and approved."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import click

from libs.common import errors
from services.cli import output as out
from services.cli import resources
from services.cli.app import App, pass_app
from services.cli.commands.grants import scope_of
from services.cli.durations import parse_duration
from services.cli.hub import Document, Hub

_REQUESTS, _POLICIES = "accessrequests", "accesspolicies"
_TRIES = 5


@click.command()
@click.option("--role", required=True, metavar="ROLE", help='The role; see "herdsman role list".')
@click.option("--cluster", metavar="NAME", help="In this cluster.")
@click.option("--project", metavar="NAME", help="In this project.")
@click.option("--global", "everywhere", is_flag=True, help="For the hub; with a cluster role: in every cluster.")
@click.option(
    "--for", "duration", required=True, metavar="TIME", help="For how long, from the approval on: 30m, 1h, 1d."
)
@click.option("--reason", required=True, help="What it is needed for: who approves reads it.")
@click.option("--policy", metavar="NAME", help='Where several allow it; see "herdsman access policy list".')
@click.option(
    "--break-glass",
    is_flag=True,
    help="An emergency: get it at once, with an alarm; somebody else reviews it afterwards.",
)
@pass_app
def request(
    app: App, role: str, cluster: str | None, project: str | None, everywhere: bool, duration: str, reason: str, policy: str | None,
    break_glass: bool,
) -> None:  # fmt: skip
    """Ask for a role for a while. Prints the name of the request.

    \b
    Examples:
      herdsman access request --role cluster-member --cluster prod --for 1h --reason "the queue is stuck, ticket 4711"
      herdsman access request --role cluster-owner --cluster prod --for 1h --reason "prod is down" --break-glass
    """
    spec: Document = {
        "role": role, "scope": scope_of(cluster, project, everywhere), "durationSeconds": parse_duration(duration), "reason": reason,
    }  # fmt: skip
    if policy:
        spec["policy"] = policy
    if break_glass:
        spec["breakGlass"] = True
    name = f"{role[:200]}-{secrets.token_hex(4)}"
    with app.hub() as hub:
        made = hub.post(resources.path(_REQUESTS), resources.new("AccessRequest", name, spec))
    status = made.get("status") or {}
    missing = status.get("missing", 0)
    if status.get("phase") == "Granted":
        out.note(f"granted until {status.get('until')}; an alarm was raised, and somebody else has to review it")
    else:
        out.note(f"asked: {missing} approval{'s' if missing != 1 else ''} missing, see herdsman access list")
    click.echo(name)


@click.command("list")
@click.option("--pending", is_flag=True, help="Only those that wait for a decision.")
@click.option("--break-glass", is_flag=True, help="Only emergencies.")
@click.option("--unreviewed", is_flag=True, help="Only emergencies that somebody else has to review.")
@out.output_option("wide", "json", "yaml", "name")
@pass_app
def list_requests(app: App, pending: bool, break_glass: bool, unreviewed: bool, output: str | None) -> None:
    """List the requests that you made, and those that you decide on."""
    wanted = (
        ("status.phase=Pending", pending),
        ("spec.breakGlass=true", break_glass),
        ("status.unreviewed=true", unreviewed),
    )
    with app.hub() as hub:
        out.print_list(hub, _REQUESTS, output, fields=",".join(text for text, given in wanted if given))


@click.command()
@click.argument("name")
@click.option("--comment", default="", help="Why.")
@pass_app
def approve(app: App, name: str, comment: str) -> None:
    """Approve the request NAME of somebody else. You must hold the role there yourself, for as long as it is asked for.

    Of an emergency: say that it was right, and close its review.
    """
    with app.hub() as hub:
        status = _decide(hub, name, "approve", comment)
    if status.get("alarmed"):
        out.note(f"reviewed {name}")
    elif status.get("phase") == "Granted":
        out.note(
            f"granted until {status.get('until')}; take it away earlier with: kubectl --context herdsman delete roletemplatebinding {status.get('binding')}"
        )
    else:
        out.note(f"approved; {status.get('missing')} more to approve")


@click.command()
@click.argument("name")
@click.option("--comment", default="", help="Why.")
@pass_app
def deny(app: App, name: str, comment: str) -> None:
    """Deny the request NAME. Of an emergency: say that it was wrong; the role is taken away at once."""
    with app.hub() as hub:
        _decide(hub, name, "deny", comment)
    out.note(f"denied {name}")


@click.command()
@click.argument("name")
@pass_app
def withdraw(app: App, name: str) -> None:
    """Take back the request NAME, which you made and nobody decided on."""
    with app.hub() as hub:
        hub.delete(resources.path(_REQUESTS, name))
    out.note(f"took back {name}")


@click.group()
def policy() -> None:
    """Say who may ask for which roles, and who approves."""


def _repeated(*names: str, metavar: str, what: str) -> Callable[[Any], Any]:
    return click.option(*names, metavar=metavar, multiple=True, help=f"{what}; can be repeated.")


@policy.command("create")
@click.argument("name")
@_repeated("--role", "roles", metavar="ROLE", what="A role that may be asked for")
@_repeated("--cluster", "clusters", metavar="NAME", what="In this cluster")
@_repeated("--project", "projects", metavar="NAME", what="In this project")
@click.option("--any-cluster", is_flag=True, help="In any one cluster.")
@click.option("--any-project", is_flag=True, help="In any one project.")
@click.option("--global", "everywhere", is_flag=True, help="For the hub; with a cluster role: in every cluster.")
@_repeated(
    "--requester",
    "requesters",
    metavar="WHO",
    what="Who may ask: user:NAME, group:NAME, a principal id, or * for everybody",
)
@_repeated("--approver", "approvers", metavar="WHO", what="Who decides: user:NAME, group:NAME, or a principal id")
@click.option(
    "--approvals", type=click.IntRange(1, 5), default=1, show_default=True, help="How many people must approve."
)
@click.option(
    "--longest", default="1h", show_default=True, metavar="TIME", help="The longest time that may be asked for."
)
@click.option(
    "--break-glass",
    is_flag=True,
    help="For emergencies: given at once, reviewed afterwards. You must hold the roles for good.",
)
@click.option("--description", default="", help="What it is for, and who looks after it.")
@pass_app
def create_policy(
    app: App, name: str, roles: tuple[str, ...], clusters: tuple[str, ...], projects: tuple[str, ...], any_cluster: bool, any_project: bool,
    everywhere: bool, requesters: tuple[str, ...], approvers: tuple[str, ...], approvals: int, longest: str, break_glass: bool, description: str,
) -> None:  # fmt: skip
    """Let people ask for roles. The policy NAME gives nothing by itself: who approves must hold the role there.

    \b
    Example:
      herdsman access policy create prod-on-call --role cluster-member --cluster prod \\
        --requester group:developers --approver group:ops --longest 4h
    """
    flags = (("anyCluster", any_cluster), ("anyProject", any_project), ("global", everywhere))
    scopes: list[Document] = [{"cluster": c} for c in clusters] + [{"project": p} for p in projects]
    scopes += [{field: True} for field, given in flags if given]
    for option, given in (
        ("--role", roles),
        ("a place such as --cluster", scopes),
        ("--requester", requesters),
        ("--approver", approvers),
    ):
        if not given:
            raise click.UsageError(f"say more: {option} is missing")
    spec: Document = {
        "roles": list(roles), "scopes": scopes, "approvals": approvals, "maxSeconds": parse_duration(longest), "description": description,
    }  # fmt: skip
    if break_glass:
        spec["breakGlass"] = True
    with app.hub() as hub:
        spec["requesters"] = [_principal(hub, who) for who in requesters]
        spec["approvers"] = [_principal(hub, who) for who in approvers]
        hub.post(resources.path(_POLICIES), resources.new("AccessPolicy", name, spec))
    out.note(f'policy "{name}" created')


@policy.command("list")
@out.output_option("wide", "json", "yaml", "name")
@pass_app
def list_policies(app: App, output: str | None) -> None:
    """List the policies, or those by which you may ask."""
    with app.hub() as hub:
        out.print_list(hub, _POLICIES, output, empty="there is nothing that you may ask for")


@policy.command("delete")
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_app
def delete_policy(app: App, name: str, yes: bool) -> None:
    """Delete the policy NAME: what was granted by it goes on to its end, what waits can't be approved any more."""
    out.confirm(f'Delete policy "{name}"?', yes)
    with app.hub() as hub:
        hub.delete(resources.path(_POLICIES, name))
    out.note(f'policy "{name}" is deleted')


def _decide(hub: Hub, name: str, verdict: str, comment: str) -> Document:
    """Add a decision to what is there now, so that it is about what was read. Returns the status after it."""
    for left in reversed(range(_TRIES)):
        found = hub.get(resources.path(_REQUESTS, name))
        decisions = list((found.get("spec") or {}).get("decisions") or ())
        version = (found.get("metadata") or {}).get("resourceVersion")
        body = {
            "metadata": {"resourceVersion": version},
            "spec": {"decisions": [*decisions, {"verdict": verdict, "comment": comment}]},
        }
        try:
            return dict(hub.merge_patch(resources.path(_REQUESTS, name), body).get("status") or {})
        except errors.Conflict as error:
            # Somebody else decided meanwhile; a conflict that says more stays one.
            if not left or "modified" not in error.message:
                raise
    raise AssertionError("the last try returns or raises")


def _principal(hub: Hub, who: str) -> str:
    kind, _, name = who.partition(":")
    if kind not in ("user", "group") or ":" in name:
        return who
    found = hub.get(resources.path(f"{kind}s", name))
    return str((found.get("status") or {}).get("principalId", ""))


COMMANDS = (request, list_requests, approve, deny, withdraw, policy)
