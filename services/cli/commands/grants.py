"""`herdsman grant` and `herdsman revoke`: RoleTemplateBindings by the words that people use.

A binding's name is a hash of principal, role and scope, so that granting twice is one binding and two people who grant
the same thing at once do not make two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from libs.common import errors
from services.cli import output as out
from services.cli import resources
from services.cli.app import App, pass_app
from services.cli.durations import format_moment, parse_duration
from services.cli.hub import Document, Hub

_PLURAL = "roletemplatebindings"


def _words(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say who, what and where; the same for both commands."""
    for option in (
        click.option(
            "--global", "everywhere", is_flag=True, help="For the hub; with a cluster role: in every cluster."
        ),
        click.option("--project", metavar="NAME", help="In this project."),
        click.option(
            "--cluster-selector", metavar="LABELS", help="In every cluster with these labels, as kubectl -l takes them."
        ),
        click.option("--cluster", metavar="NAME", help="In this cluster."),
        click.option("--role", required=True, metavar="ROLE", help='The role; see "herdsman role list".'),
        click.option("--principal", metavar="ID", help="Who, by principal id: a group, or a user of a directory."),
        click.option("--group", metavar="NAME", help="Who, by the name of a group of the hub itself."),
        click.option("--user", metavar="NAME", help="Who, by the name of a local user."),
    ):
        command = option(command)
    return command


def scope_of(cluster: str | None, project: str | None, everywhere: bool, selector: str | None = None) -> Document:
    """The binding's scope. Raises UsageError unless exactly one is given."""
    given: list[Document] = [s for s in (
        {"cluster": cluster} if cluster else None, {"project": project} if project else None, {"global": True} if everywhere else None,
        {"clusterSelector": _parse_selector(selector)} if selector else None,
    ) if s]  # fmt: skip
    if len(given) != 1:
        raise click.UsageError(
            "say where: exactly one of --cluster NAME, --cluster-selector LABELS, --project NAME, --global"
        )
    return given[0]


def _parse_selector(text: str) -> Document:
    """The selector in the one form that this command writes. Raises UsageError."""
    from libs.common.apiserver.selectors import parse_labels
    from libs.common.resources.selectors import selector_of

    try:
        return selector_of(parse_labels(text)).to_document()
    except errors.BadRequest as exc:
        raise click.UsageError(exc.message) from exc
    except KeyError as exc:
        raise click.UsageError("a role can be given by =, !=, in, notin, KEY and !KEY, not by < and >") from exc


def _selector_text(selector: Document) -> str:
    """The same text for selectors that say the same, however they were written."""
    from libs.common.resources.selectors import LabelSelector, describe_selector

    return describe_selector(LabelSelector.model_validate(selector).requirements)


def _place(scope: Document) -> str:
    """The scope's name or condition, as one text."""
    value = next(iter(scope.values()))
    return _selector_text(value) if isinstance(value, dict) else str(value)


def holder_of(user: str | None, principal: str | None) -> Document:
    """The binding's holder. Raises UsageError unless exactly one is given."""
    if bool(user) == bool(principal):
        raise click.UsageError("say who: exactly one of --user NAME, --group NAME, --principal ID")
    return {"user": user} if user else {"principal": principal}


def _holder(hub: Hub, user: str | None, group: str | None, principal: str | None) -> Document:
    """As `holder_of`; a group of the hub itself by its principal id. Raises NotFound."""
    if not group:
        return holder_of(user, principal)
    found = hub.get(resources.path("groups", group))
    return {"principal": str((found.get("status") or {}).get("principalId", ""))}


def binding_name(holder: Document, role: str, scope: Document) -> str:
    """Deterministic, and readable enough for a list: `<role>-<16 hex digits>`."""
    words = "\n".join(
        ["user" if "user" in holder else "principal", *holder.values(), role, *sorted(scope), _place(scope)]
    )
    return f"{role[:200]}-{hashlib.sha256(words.encode()).hexdigest()[:16]}"


def describe(holder: Document, role: str, scope: Document, group: str | None = None) -> str:
    """For people: a group of the hub by its name, which they gave, and not by its id."""
    kind = "clusters with" if "clusterSelector" in scope else next(iter(scope))
    where = "everywhere" if "global" in scope else f"{kind} {_place(scope)}"
    who = f"group {group}" if group else next(iter(holder.values()))
    return f"{role} for {who} ({where})"


@click.command()
@_words
@click.option("--for", "duration", metavar="TIME", help="End by itself after this time: 30m, 1h, 7d.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who look at the list later.")
@pass_app
def grant(
    app: App, user: str | None, group: str | None, principal: str | None, role: str, cluster: str | None, project: str | None,
    everywhere: bool, cluster_selector: str | None, duration: str | None,
    reason: str,
) -> None:  # fmt: skip
    """Give a role to a user or group; it counts from the next call on.

    \b
    Examples:
      herdsman grant --user ana --role cluster-member --cluster prod
      herdsman grant --user ana --role cluster-owner --cluster prod --for 1h --reason "incident 4711"
      herdsman grant --group shop-team --role project-member --project shop
      herdsman grant --group ops --role cluster-member --cluster-selector env=dev
    """
    # Before anything is asked: a group takes a call to the hub.
    holder_of(user, group or principal)
    if group and principal:
        raise click.UsageError("say who: exactly one of --user NAME, --group NAME, --principal ID")
    scope = scope_of(cluster, project, everywhere, cluster_selector)
    not_after = format_moment(datetime.now(UTC) + timedelta(seconds=parse_duration(duration))) if duration else None
    with app.hub() as hub:
        holder = _holder(hub, user, group, principal)
        document = resources.new(
            "RoleTemplateBinding", binding_name(holder, role, scope), {**holder, "role": role, "scope": scope}
        )
        if not_after:
            document["spec"]["notAfter"] = not_after
        if reason:
            document["spec"]["reason"] = reason
        changed = _ensure(hub, document, not_after)
    until = f" until {not_after}" if not_after else ""
    out.note(f"{'granted' if changed else 'was granted already:'} {describe(holder, role, scope, group)}{until}")


def _ensure(hub: Hub, document: Document, not_after: str | None) -> bool:
    """Create the binding, or make the one of the same words say this. Returns whether anything changed."""
    name = document["metadata"]["name"]
    try:
        hub.post(resources.path(_PLURAL), document)
    except errors.AlreadyExists:
        existing = hub.get(resources.path(_PLURAL, name))
    else:
        return True
    # What the words mean today: the user or cluster may have been deleted and made again since, and then is another one.
    rehearsal = {**document, "metadata": {"name": f"{name}-rehearsal"}}
    meant = hub.post(resources.path(_PLURAL), rehearsal, {"dryRun": "All"})["spec"]
    before = existing["spec"]
    if (before.get("principal"), before.get("scope")) != (meant.get("principal"), meant.get("scope")):
        hub.delete(resources.path(_PLURAL, name))
        hub.post(resources.path(_PLURAL), document)
        return True
    # Said again without a reason keeps the one that was given.
    reason = {key: document["spec"][key] for key in ("reason",) if key in document["spec"]}
    if before.get("notAfter") == not_after and reason.items() <= before.items():
        return False
    hub.merge_patch(resources.path(_PLURAL, name), {"spec": {"notAfter": not_after, **reason}})
    return True


@click.command()
@_words
@pass_app
def revoke(
    app: App,
    user: str | None,
    group: str | None,
    principal: str | None,
    role: str,
    cluster: str | None,
    project: str | None,
    everywhere: bool,
    cluster_selector: str | None,
) -> None:
    """Take a role away; it counts from the next call on and cuts open streams.

    Deletes every binding that says these words, whoever made it.

    \b
    Example:
      herdsman revoke --user ana --role cluster-member --cluster prod
    """
    # Before anything is asked: a group takes a call to the hub.
    holder_of(user, group or principal)
    if group and principal:
        raise click.UsageError("say who: exactly one of --user NAME, --group NAME, --principal ID")
    scope = scope_of(cluster, project, everywhere, cluster_selector)
    with app.hub() as hub:
        holder = _holder(hub, user, group, principal)
        holders = {next(iter(holder.values()))}
        if user and (principal_id := _principal_of(hub, user)):
            holders.add(principal_id)
        found = [b for b in resources.list_items(hub, _PLURAL, fields=f"spec.role={role}") if _says(b, holders, scope)]
        for binding in found:
            try:
                hub.delete(resources.path(_PLURAL, binding["metadata"]["name"]))
            except errors.NotFound:
                out.note(f"{binding['metadata']['name']} was deleted by somebody else meanwhile")
    if not found:
        raise errors.NotFound(
            f'there is no {describe(holder, role, scope, group)}: see "kubectl --context herdsman get {_PLURAL}"'
        )
    out.note(
        f"revoked {describe(holder, role, scope, group)}" + (f" ({len(found)} bindings)" if len(found) > 1 else "")
    )


def _principal_of(hub: Hub, user: str) -> str:
    """The principal id of a local user; "" where the caller may not read users or the user is gone."""
    try:
        answer = hub.get(resources.path("users", user))
    except (errors.Denied, errors.NotFound):
        return ""
    return str((answer.get("status") or {}).get("principalId", ""))


def _says(binding: Document, holders: set[str], scope: Document) -> bool:
    spec = binding.get("spec") or {}
    where = spec.get("scope") or {}
    same_place = all(bool(where.get(key)) and _place({key: where[key]}) == _place(scope) for key in scope)
    return same_place and bool(holders & {str(spec.get("user", "")), str(spec.get("principal", ""))})
