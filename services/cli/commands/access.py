"""`herdsman access`: who can do what where, and why; and with `access_requests`, asking for a role for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from services.cli import output as out
from services.cli import resources
from services.cli.access_answers import print_answer
from services.cli.app import App, pass_app
from services.cli.commands.access_requests import COMMANDS
from services.cli.commands.grants import scope_of
from services.cli.hub import Document

_HUB_GROUP = resources.API_VERSION.partition("/")[0]


@click.group()
def access() -> None:
    """Find out who can do what where, and why; ask for a role for a while."""


for _command in COMMANDS:
    access.add_command(_command)


def _places(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say of what and where; the same for all questions."""
    for option in (
        out.output_option("json", "yaml", "csv"),
        click.option(
            "--hub", "on_hub", is_flag=True, help="Ask about the hub's own objects, such as clusters and users."
        ),
        click.option(
            "--name", "object_name", metavar="NAME", default="", help="Of the object of this name; else of any."
        ),
        click.option("--project", metavar="NAME", help="With --hub: what belongs to this project."),
        click.option(
            "-n", "--namespace", metavar="NAME", help="In this namespace of the cluster; else in any, or over all."
        ),
        click.option("--cluster", metavar="NAME", help="In this cluster; else in any."),
    ):
        command = option(command)
    return command


@access.command("who-can")
@click.argument("verb")
@click.argument("resource")
@_places
@pass_app
def who_can(
    app: App, verb: str, resource: str, cluster: str | None, namespace: str | None, project: str | None, object_name: str,
    on_hub: bool, output: str | None,
) -> None:  # fmt: skip
    """List who can do VERB to RESOURCE, and by which binding, group and role.

    VERB "reach" with secrets also finds who comes to a Secret in a roundabout way: by running pods that mount it, entering pods, taking a
    service account's token, giving themselves a role. Roles made by hand in a cluster are not looked at.

    \b
    Examples:
      herdsman access who-can delete deployments.apps --cluster prod -n payments
      herdsman access who-can reach secrets --name db --cluster prod -n payments
      herdsman access who-can update clusters --hub --name prod
      herdsman access who-can get secrets -o csv > secrets.csv
    """
    spec = _question(verb, resource, cluster, namespace, project, object_name, on_hub)
    _ask(app, spec, output, "nobody can")


@access.command()
@click.argument("user")
@click.argument("verb", required=False)
@click.argument("resource", required=False)
@_places
@pass_app
def explain(
    app: App, user: str, verb: str | None, resource: str | None, cluster: str | None, namespace: str | None, project: str | None,
    object_name: str, on_hub: bool, output: str | None,
) -> None:  # fmt: skip
    """List the roles of USER and how they come by them; with VERB and RESOURCE, why they can do that.

    USER is a user's name, or a principal id such as ldap:group:….

    \b
    Examples:
      herdsman access explain ana
      herdsman access explain ana get secrets --cluster prod -n payments
    """
    spec = _question(verb, resource, cluster, namespace, project, object_name, on_hub)
    spec["principal" if ":" in user else "user"] = user
    _ask(app, spec, output, f"{user} can't" if verb else f"{user} has no role there")


@access.command("what-if")
@click.argument("verb", required=False)
@click.argument("resource", required=False)
@_places
@click.option("--grant-user", metavar="NAME", help="If this user were given a role: with --role, and one of --in-….")
@click.option("--grant-principal", metavar="ID", help="The same for a principal id, such as that of a group.")
@click.option("--role", metavar="ROLE", help="The role that would be given.")
@click.option("--in-cluster", metavar="NAME", help="… in this cluster.")
@click.option("--in-project", metavar="NAME", help="… in this project.")
@click.option("--in-all", is_flag=True, help="… on the hub, or with a cluster role in every cluster.")
@click.option("--without", metavar="BINDING", multiple=True, help="If this binding were deleted; can be repeated.")
@click.option("--role-file", type=click.File("rb"), help="If this RoleTemplate (YAML or JSON) were applied.")
@pass_app
def what_if(
    app: App, verb: str | None, resource: str | None, cluster: str | None, namespace: str | None, project: str | None, object_name: str,
    on_hub: bool, output: str | None, grant_user: str | None, grant_principal: str | None, role: str | None, in_cluster: str | None,
    in_project: str | None, in_all: bool, without: tuple[str, ...], role_file: Any,
) -> None:  # fmt: skip
    """Tell who would gain and lose what by a change that is not made.

    With VERB and RESOURCE only of that right; else of roles, and of all rights of a role that would change.

    \b
    Examples:
      herdsman access what-if --grant-user ana --role cluster-owner --in-cluster prod
      herdsman access what-if reach secrets --without team-reader
      herdsman access what-if --role-file role.yaml
    """
    change: Document = {}
    if grant_user or grant_principal or role:
        if bool(grant_user) == bool(grant_principal) or not role:
            raise click.UsageError("say whom and what: --role, and one of --grant-user and --grant-principal")
        holder = {"user": grant_user} if grant_user else {"principal": grant_principal}
        change["add"] = [{**holder, "role": role, "scope": _scope(in_cluster, in_project, in_all)}]
    if without:
        change["remove"] = list(without)
    if role_file is not None:
        change["roles"] = [_read_role(role_file)]
    if not change:
        raise click.UsageError("say what would change: --grant-user or --grant-principal, --without, --role-file")
    spec = _question(verb, resource, cluster, namespace, project, object_name, on_hub)
    _ask(app, {**spec, "whatIf": change}, output, "nothing would change")


def _scope(cluster: str | None, project: str | None, everywhere: bool) -> Document:
    try:
        return scope_of(cluster, project, everywhere)
    except click.UsageError as error:
        raise click.UsageError("say where: exactly one of --in-cluster NAME, --in-project NAME, --in-all") from error


def _question(
    verb: str | None, resource: str | None, cluster: str | None, namespace: str | None, project: str | None, name: str, on_hub: bool
) -> Document:  # fmt: skip
    """The review's spec. RESOURCE is `plural[.group][/subresource]`."""
    if bool(verb) != bool(resource):
        raise click.UsageError("say what: a VERB and a RESOURCE, such as: get secrets")
    kind, _, subresource = (resource or "").partition("/")
    plural, _, group = kind.partition(".")
    spec = {
        "verb": verb, "resource": f"{plural}/{subresource}" if subresource else plural, "name": name, "cluster": cluster,
        "namespace": namespace, "project": project, "apiGroup": _HUB_GROUP if on_hub else group,
    }  # fmt: skip
    return {field: value for field, value in spec.items() if value}


def _read_role(file: Any) -> Document:
    import yaml

    try:
        document = yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{file.name} can't be read as YAML") from error
    if not isinstance(document, dict) or document.get("kind") != "RoleTemplate":
        raise click.UsageError(f"{file.name} holds no RoleTemplate")
    return {"name": (document.get("metadata") or {}).get("name"), "spec": document.get("spec") or {}}


def _ask(app: App, spec: Document, output: str | None, nothing: str) -> None:
    document = {"apiVersion": resources.API_VERSION, "kind": "AccessReview", "spec": spec}
    with app.hub() as hub:
        review = hub.post(resources.path("accessreviews"), document)
    print_answer(review, output, nothing)
