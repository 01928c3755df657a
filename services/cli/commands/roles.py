"""`herdsman role`: what can be granted, and roles of one's own. Everything else about them is kubectl's (`roletemplates`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import click

from services.cli import output as out
from services.cli import resources
from services.cli.app import App, pass_app
from services.cli.hub import Document
from services.cli.output import output_option, print_list

_PLURAL = "roletemplates"
_HUB_GROUP = "management.herdsman.dev"
_SCOPES = click.Choice(["global", "cluster", "project"])


@click.group()
def role() -> None:
    """List, show, create and delete the roles that can be granted."""


@role.command("list")
@click.option("--scope", type=_SCOPES, help="Only roles of this scope.")
@output_option("wide", "json", "yaml", "name")
@pass_app
def list_roles(app: App, scope: str | None, output: str | None) -> None:
    """List the role templates."""
    with app.hub() as hub:
        print_list(hub, _PLURAL, output, fields=f"spec.scope={scope}" if scope else "")


@role.command()
@click.argument("name")
@output_option("json", "yaml")
@pass_app
def show(app: App, name: str, output: str | None) -> None:
    """Show what NAME allows, with all that it inherits and where that comes from."""
    with app.hub() as hub:
        found = hub.get(resources.path(_PLURAL, name))
        if output:
            out.print_document(found, output)
            return
        others = {r["metadata"]["name"]: r for r in resources.list_items(hub, _PLURAL)}
    click.echo("\n".join(describe(found)))
    rows = list(_rows(found, others))
    if rows:
        click.echo()
        click.echo(out.render_table(["VERBS", "RESOURCES", "NAMES", "WHERE", "FROM"], rows))


@role.command()
@click.argument("name")
@click.option(
    "--scope", type=_SCOPES, required=True, help="Where it can be given: on the hub, in clusters, in projects."
)
@click.option("--inherits", multiple=True, metavar="ROLE", help="A role of the same scope whose rights are added.")
@click.option("--rule", "rules", multiple=True, metavar="RULE", help='Inside clusters: "VERBS RESOURCES [NAMES]".')
@click.option("--hub-rule", "hub_rules", multiple=True, metavar="RULE", help="On objects of the hub, in the same form.")
@click.option("--display-name", default="", help="The name that people see.")
@click.option("--description", default="", help="What it is for.")
@pass_app
def create(
    app: App, name: str, scope: str, inherits: tuple[str, ...], rules: tuple[str, ...], hub_rules: tuple[str, ...],
    display_name: str, description: str,
) -> None:  # fmt: skip
    """Create a role of your own. Lists have commas and no blanks; a resource's API group follows a dot, as in kubectl.

    \b
    Examples:
      herdsman role create restarter --scope project --inherits project-viewer --rule "patch deployments.apps"
      herdsman role create secret-reader --scope cluster --rule "get,list secrets web,db" --hub-rule "get clusters"
      herdsman role create prober --scope cluster --rule "get /healthz,/livez"
    """
    spec: Document = {"scope": scope}
    texts = {"displayName": display_name, "description": description}
    spec.update({key: text for key, text in texts.items() if text})
    lists = {
        "inherits": list(inherits),
        "rules": [rule for text in rules for rule in parse_rule(text)],
        "hubRules": [rule for text in hub_rules for rule in parse_rule(text, _HUB_GROUP)],
    }
    spec.update({key: values for key, values in lists.items() if values})
    with app.hub() as hub:
        hub.post(resources.path(_PLURAL), resources.new("RoleTemplate", name, spec))
    where = {"global": "--global", "cluster": "--cluster CLUSTER", "project": "--project PROJECT"}[scope]
    out.note(f'role "{name}" created; give it with: herdsman grant --user USER --role {name} {where}')


@role.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_app
def delete(app: App, name: str, yes: bool) -> None:
    """Delete NAME. It is refused while somebody has the role, or another role inherits it."""
    out.confirm(f'Delete role "{name}"?', yes)
    with app.hub() as hub:
        hub.delete(resources.path(_PLURAL, name))
    out.note(f'role "{name}" is deleted')


def parse_rule(text: str, group: str | None = None) -> list[Document]:
    """Rules from `VERBS RESOURCES [NAMES]` or `VERBS URLS`, one for each API group. Raises UsageError.

    `group`: of all resources, instead of what follows their dots.
    """
    words = text.split()
    if len(words) not in (2, 3) or not all(all(part for part in word.split(",")) for word in words):
        raise click.UsageError(
            f'"{text}" is no rule: say "VERBS RESOURCES [NAMES]", each a list with commas and no blanks'
        )
    verbs, wanted = words[0].split(","), words[1].split(",")
    if any(part.startswith("/") for part in wanted):
        if len(words) == 3 or not all(part.startswith("/") for part in wanted):
            raise click.UsageError(f'"{text}" is no rule: URLs have no names, and stand in a rule of their own')
        return [{"verbs": verbs, "nonResourceURLs": wanted}]
    by_group: dict[str, list[str]] = {}
    for part in wanted:
        resource, _, its_group = part.partition(".")
        by_group.setdefault(its_group if group is None else group, []).append(resource if group is None else part)
    names: Document = {"resourceNames": words[2].split(",")} if len(words) == 3 else {}
    return [{"verbs": verbs, "apiGroups": [g], "resources": found, **names} for g, found in by_group.items()]


def describe(found: Document) -> list[str]:
    """The role itself in lines for people."""
    spec = found["spec"]
    lines = [f"Name:         {found['metadata']['name']}", f"Scope:        {spec['scope']}"]
    marks = {
        "builtIn": "built in",
        "locked": "locked: given to nobody any more",
        "creatorDefault": "given to who makes one",
    }
    for label, text in (
        ("Title", spec.get("displayName")), ("Description", spec.get("description")), ("Inherits", ", ".join(spec.get("inherits", ()))),
        ("Is", ", ".join(text for key, text in marks.items() if spec.get(key))),
    ):  # fmt: skip
        if text:
            lines.append(f"{label + ':':<13} {text}")
    return lines


def _rows(found: Document, others: Mapping[str, Document]) -> Iterator[list[str]]:
    scope = found["spec"]["scope"]
    inside = {"cluster": "in the cluster", "project": "in its namespaces"}.get(scope, "")
    for origin in _chain(found, others):
        spec, name = origin["spec"], origin["metadata"]["name"]
        for where, rules in (
            (inside, spec.get("rules", ()) if inside else ()),
            ("on the hub", spec.get("hubRules", ())),
        ):
            for rule in rules:
                yield [
                    ",".join(rule["verbs"]),
                    _targets(rule),
                    ",".join(rule.get("resourceNames", ())) or "*",
                    where,
                    name,
                ]


def _chain(found: Document, others: Mapping[str, Document]) -> Iterator[Document]:
    """The role and all that it inherits, each once; what counts is what the hub counts (`access.roles`)."""
    seen, queue = {found["metadata"]["name"]}, [found]
    while queue:
        current = queue.pop(0)
        yield current
        for name in current["spec"].get("inherits", ()):
            parent = others.get(name)
            if parent is not None and name not in seen and parent["spec"]["scope"] == found["spec"]["scope"]:
                seen.add(name)
                queue.append(parent)


def _targets(rule: Document) -> str:
    urls: Iterable[str] = rule.get("nonResourceURLs", ())
    shown = [
        f"{resource}.{group}" if group and group != _HUB_GROUP else resource
        for group in rule.get("apiGroups", ())
        for resource in rule.get("resources", ())
    ]
    return ",".join([*urls, *shown])
