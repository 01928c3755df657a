"""`herdsman project`: groups of namespaces. Members are `grant`'s business; what namespaces hold is the clusters'."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from libs.common import errors
from services.cli import output as out
from services.cli import resources
from services.cli.app import App, pass_app
from services.cli.hub import Document, Hub, segment

_PLURAL = "projects"
_TRIES = 5


@click.group()
def project() -> None:
    """Group namespaces of clusters, with quotas and members."""


@project.command("list")
@out.output_option("wide", "json", "yaml", "name")
@pass_app
def list_projects(app: App, output: str | None) -> None:
    """List the projects that you may see."""
    with app.hub() as hub:
        out.print_list(hub, _PLURAL, output, empty='no projects: make one with "herdsman project create NAME"')


@project.command()
@click.argument("name")
@out.output_option("json", "yaml")
@pass_app
def show(app: App, name: str, output: str | None) -> None:
    """Show one project: its namespaces, quota and members, and how far its clusters are.

    Shares in brackets are equal parts of the rest, which the hub filled in.
    """
    with app.hub() as hub:
        document = hub.get(resources.path(_PLURAL, name))
        if output:
            out.print_document(document, output)
            return
        try:
            members = list(resources.list_items(hub, "roletemplatebindings", fields=f"spec.scope.project={name}"))
        except errors.Denied:
            members = []
        names = _group_names(hub, members)
    spec, status = document.get("spec") or {}, document.get("status") or {}
    facts = {
        "name": name,
        "display name": spec.get("displayName") or "",
        "description": spec.get("description") or "",
        "isolated": "yes" if spec.get("isolated") else "no",
        "default deny": "yes" if spec.get("defaultDeny") else "",
        "guarded": "yes" if spec.get("guarded") else "",
        "pod security": spec.get("podSecurity") or "as the cluster does",
        "quota": _amounts(spec.get("quota") or {}) or "none",
        "used": _amounts(status.get("used") or {}),
    }
    for key, value in facts.items():
        if value:
            click.echo(f"{key + ':':<16}{value}")
    entries = spec.get("namespaces") or []
    if entries:
        seen = {_key(n): n for n in status.get("namespaces") or ()}
        rows = [_namespace_row(e, seen.get(_key(e))) for e in entries]
        click.echo("\n" + out.render_table(["CLUSTER", "NAMESPACE", "THERE", "SHARE", "USED"], rows))
    if status.get("clusters"):
        rows = [[c["name"], c["state"], c.get("since", ""), c.get("message", "")] for c in status["clusters"]]
        click.echo("\n" + out.render_table(["CLUSTER", "STATE", "SINCE", "MESSAGE"], rows))
    if members:
        rows = [[_holder(m, names), m["spec"].get("role", ""), m["spec"].get("notAfter") or "<none>"] for m in members]
        click.echo("\n" + out.render_table(["MEMBER", "ROLE", "UNTIL"], sorted(rows)))


@project.command()
@click.argument("name")
@click.argument("namespaces", nargs=-1, metavar="[CLUSTER/NAMESPACE]...")
@click.option("--display-name", default="", help="The name that people see.")
@click.option("--description", default="", help="What it is for, and who looks after it.")
@click.option("--template", default="", metavar="NAME", help="Made as this template says; see \"herdsman project templates\".")  # fmt: skip
@pass_app
def create(
    app: App, name: str, namespaces: tuple[str, ...], display_name: str, description: str, template: str
) -> None:
    """Create the project NAME, of namespaces that are there, or as a template says.

    \b
    Examples:
      herdsman project create my-shop --template sandbox
      herdsman project create shop prod/web prod/db test/web
      herdsman grant --group shop-team --role project-member --project shop
    """
    words = {k: v for k, v in (("displayName", display_name), ("description", description)) if v}
    if template:
        if namespaces:
            raise click.UsageError("a template says which namespaces the project begins with: leave them out")
        with app.hub() as hub:
            made = hub.post(f"/v1/project-templates/{segment(template)}/projects", {"name": name, **words})
        begins = ", ".join(f"{e['cluster']}/{e['namespace']}" for e in made["spec"].get("namespaces", ()))
        out.note(f'project "{name}" created' + (f", with {begins}" if begins else ""))
        return
    spec: Document = {"namespaces": [_place(text) for text in namespaces], **words}
    with app.hub() as hub:
        hub.post(resources.path(_PLURAL), resources.new("Project", name, spec))
    out.note(f'project "{name}" created; let people in with: herdsman grant --user USER --role project-member --project {name}')  # fmt: skip


@project.command()
@out.output_option("wide", "json", "yaml", "name")
@pass_app
def templates(app: App, output: str | None) -> None:
    """List the templates that projects can be made from."""
    with app.hub() as hub:
        out.print_list(hub, "projecttemplates", output, empty="no templates that you may see")


@project.command()
@click.argument("name")
@click.argument("namespaces", nargs=-1, required=True, metavar="CLUSTER/NAMESPACE...")
@click.option("--create", "fresh", is_flag=True, help="They are not there yet: the hub makes them.")
@pass_app
def add(app: App, name: str, namespaces: tuple[str, ...], fresh: bool) -> None:
    """Bring namespaces into the project NAME: its members have their rights there.

    For namespaces that are there you need the right to update their cluster, and there all rights that the project's members have.
    """
    places = [_place(text) for text in namespaces]
    if fresh:
        with app.hub() as hub:
            for text, place in zip(namespaces, places, strict=True):
                made = hub.post(f"/v1/projects/{segment(name)}/namespaces", place)
                out.note(f"{text}: made" if made.get("uid") else f"{text}: asked for; {made.get('pending', '')}")
        return

    def change(spec: Document) -> None:
        known = {_key(e) for e in spec.get("namespaces") or ()}
        more = [p for p in places if _key(p) not in known]
        spec["namespaces"] = [*(spec.get("namespaces") or ()), *more]

    with app.hub() as hub:
        changed = _change(hub, name, change)
    out.note(f'{", ".join(namespaces)}: in project "{name}"' + ("" if changed else " already"))


@project.command()
@click.argument("name")
@click.argument("namespaces", nargs=-1, required=True, metavar="CLUSTER/NAMESPACE...")
@pass_app
def remove(app: App, name: str, namespaces: tuple[str, ...]) -> None:
    """Take namespaces out of the project NAME: its members lose their rights there. The namespaces stay, with all in them."""
    gone = {_key(_place(text)) for text in namespaces}

    def change(spec: Document) -> None:
        spec["namespaces"] = [e for e in spec.get("namespaces") or () if _key(e) not in gone]

    with app.hub() as hub:
        changed = _change(hub, name, change)
    if not changed:
        raise errors.NotFound(f'none of {", ".join(namespaces)} is in project "{name}"')
    out.note(f'{", ".join(namespaces)}: no longer in project "{name}"')


@project.command()
@click.argument("namespace", metavar="CLUSTER/NAMESPACE")
@click.option("--to", "target", required=True, metavar="PROJECT", help="The project that gets it.")
@click.option("--from", "source", default="", metavar="PROJECT", help="Only if this project has it.")
@pass_app
def move(app: App, namespace: str, target: str, source: str) -> None:
    """Move a namespace from its project into another, in one step: at no moment is it in both, or in none.

    \b
    Example:
      herdsman project move prod/web --to shop
    """
    place = _place(namespace)
    with app.hub() as hub:
        moved = hub.post(f"/v1/projects/{segment(target)}/namespaces/move", {**place, "source": source})
    before = moved["source"]["metadata"]["name"]
    if before == target:
        out.note(f'{namespace} is in project "{target}" already')
    else:
        out.note(f'{namespace}: moved from project "{before}" to "{target}"')


@project.command()
@click.argument("name")
@click.argument("amounts", nargs=-1, metavar="[RESOURCE=AMOUNT]...")
@click.option("--namespace", default="", metavar="CLUSTER/NAMESPACE", help="The share of this namespace, instead of the whole.")  # fmt: skip
@pass_app
def quota(app: App, name: str, amounts: tuple[str, ...], namespace: str) -> None:
    """Set the quota of the project NAME, or show it. RESOURCE= without an amount takes the limit away, and the shares with it.

    Namespaces have equal parts of what is left after those that were given a share.

    \b
    Examples:
      herdsman project quota shop pods=50 limits.memory=20Gi
      herdsman project quota shop --namespace prod/db limits.memory=12Gi
      herdsman project quota shop pods=
    """
    given = dict(_amount(text) for text in amounts)
    place = _place(namespace) if namespace else None

    def change(spec: Document) -> None:
        held = spec.setdefault("quota", {})
        if place is not None:
            entry = next((e for e in spec.get("namespaces") or () if _key(e) == _key(place)), None)
            if entry is None:
                raise errors.NotFound(f'{namespace} is not in project "{name}"')
            held = entry.setdefault("share", {})
            entry["equalShare"] = [r for r in entry.get("equalShare") or () if r not in given]
        for resource, amount in given.items():
            if amount:
                held[resource] = amount
                continue
            held.pop(resource, None)
            for entry in (spec.get("namespaces") or ()) if place is None else ():
                (entry.get("share") or {}).pop(resource, None)  # parts of what is no limit any more

    with app.hub() as hub:
        if given:
            _change(hub, name, change)
        spec = hub.get(resources.path(_PLURAL, name)).get("spec") or {}
    resources_of = sorted(set(spec.get("quota") or {}) | {r for e in spec.get("namespaces") or () for r in e.get("share") or {}})  # fmt: skip
    if not resources_of:
        out.note(f'project "{name}" has no quota')
        return
    rows = [["(project)", *((spec.get("quota") or {}).get(r, "") for r in resources_of)]]
    rows += [[f"{e['cluster']}/{e['namespace']}", *((e.get("share") or {}).get(r, "") for r in resources_of)] for e in spec.get("namespaces") or ()]  # fmt: skip
    click.echo(out.render_table(["NAMESPACE", *(r.upper() for r in resources_of)], rows))


@project.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_app
def delete(app: App, name: str, yes: bool) -> None:
    """Delete the project NAME: its members lose their rights. Its namespaces stay, with all in them, and belong to no project."""
    with app.hub() as hub:
        found = hub.get(resources.path(_PLURAL, name))
        count = len((found.get("spec") or {}).get("namespaces") or ())
        out.confirm(f'Delete project "{name}"? Its {count} namespaces stay, and its members lose their rights there.', yes)  # fmt: skip
        uid = str((found.get("metadata") or {}).get("uid", ""))
        hub.delete(
            resources.path(_PLURAL, name),
            {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}},
        )
    out.note(f'project "{name}" is deleted')


def _change(hub: Hub, name: str, change: Callable[[Document], None]) -> bool:
    """Write the spec anew, on what is there now; somebody else's change meanwhile is not lost. Returns whether anything changed."""
    import copy

    for left in reversed(range(_TRIES)):
        found = hub.get(resources.path(_PLURAL, name))
        before = copy.deepcopy(found.get("spec") or {})
        change(found.setdefault("spec", {}))
        if found["spec"] == before:
            return False
        try:
            hub.request("PUT", resources.path(_PLURAL, name), body=found)
        except errors.Conflict:
            if not left:
                raise
        else:
            return True
    raise AssertionError("the last try returns or raises")


def _place(text: str) -> Document:
    cluster, slash, namespace = text.partition("/")
    if not (cluster and slash and namespace) or "/" in namespace:
        raise click.UsageError(f'"{text[:128]}" must be CLUSTER/NAMESPACE')
    return {"cluster": cluster, "namespace": namespace}


def _amount(text: str) -> tuple[str, str]:
    resource, sign, amount = text.partition("=")
    if not resource or not sign:
        raise click.UsageError(f'"{text[:128]}" must be RESOURCE=AMOUNT')
    return resource, amount


def _key(entry: Document) -> tuple[str, str]:
    return str(entry.get("cluster", "")), str(entry.get("namespace", ""))


def _amounts(amounts: dict[str, Any], equal: Sequence[str] | Iterable[str] = ()) -> str:
    """`pods=5, limits.cpu=2`; in brackets what the hub filled in."""
    filled = set(equal)
    return ", ".join(f"({r}={a})" if r in filled else f"{r}={a}" for r, a in sorted(amounts.items()))


def _namespace_row(entry: Document, seen: Document | None) -> list[str]:
    there = "unknown" if seen is None else "yes" if seen.get("uid") else "no"
    share = _amounts(entry.get("share") or {}, entry.get("equalShare") or ())
    return [entry["cluster"], entry["namespace"], there, share, _amounts((seen or {}).get("used") or {})]


def _group_names(hub: Hub, members: Iterable[Document]) -> dict[str, str]:
    """Principal id → name of the hub's own groups, if there are any among the members and the caller may know them."""
    if not any(str(m["spec"].get("principal", "")).startswith("local:group:") for m in members):
        return {}
    try:
        groups = list(resources.list_items(hub, "groups"))
    except errors.Denied:
        return {}
    return {str((g.get("status") or {}).get("principalId", "")): f"group {g['metadata']['name']}" for g in groups}


def _holder(binding: Document, names: Mapping[str, str]) -> str:
    spec = binding.get("spec") or {}
    principal = str(spec.get("principal") or "")
    return str(spec.get("user") or names.get(principal, principal))
