"""`herdsman policy`: security policies of clusters. They are written as files, with `create` or kubectl; here they are seen, tried, enforced."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

import click
import yaml

from libs.common import errors
from services.cli import output as out
from services.cli import resources
from services.cli.app import App, pass_app
from services.cli.hub import Document, Hub

KINDS = {"AdmissionPolicy": "admissionpolicies", "PodSecurityTemplate": "podsecuritytemplates"}
TRIAL = "management.herdsman.dev/trial"
WAIT_S = 60.0
LOOK_EVERY_S = 0.5


@click.group()
def policy() -> None:
    """Security policies: what clusters refuse, what that would break, and how far each cluster is."""


@policy.command("list")
@out.output_option("wide", "json", "yaml", "name")
@pass_app
def list_policies(app: App, output: str | None) -> None:
    """List the admission policies and the Pod Security templates."""
    with app.hub() as hub:
        for kind, plural in KINDS.items():
            if not output:
                click.echo(f"{kind}:")
            out.print_list(hub, plural, output, empty="none")


@policy.command()
@click.argument("name")
@out.output_option("json", "yaml")
@pass_app
def show(app: App, name: str, output: str | None) -> None:
    """Show one policy: its stage, how far each cluster is, and what it would break there."""
    with app.hub() as hub:
        _plural, document = _find(hub, name)
    if output:
        out.print_document(document, output)
        return
    spec, metadata = document["spec"], document["metadata"]
    facts = {
        "name": name,
        "kind": document["kind"],
        "version": str(metadata.get("generation", "")),
        "stage": spec.get("stage", "Audit"),
        "description": spec.get("description", ""),
        "exempt": ", ".join(spec.get("exemptNamespaces") or ()),
        "projects": ", ".join(spec.get("projects") or ()),
    }
    for key, value in facts.items():
        if value:
            click.echo(f"{key + ':':<16}{out.printable(value)}")
    clusters = (document.get("status") or {}).get("clusters") or []
    rows = [
        [c["name"], c["state"], str(c.get("generation", 0)), _count(c), c.get("since", ""), c.get("message", "")]
        for c in clusters
    ]
    if rows:
        click.echo("\n" + out.render_table(["CLUSTER", "STATE", "VERSION", "VIOLATIONS", "SINCE", "MESSAGE"], rows))
    else:
        click.echo("\nit is for no cluster that is here now")


@policy.command()
@click.option("--file", "-f", "file", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_app
def create(app: App, file: Path) -> None:
    """Create the policies in a YAML or JSON file; "kubectl apply" takes the same files, and changes what is there."""
    try:
        documents = [d for d in yaml.safe_load_all(file.read_text(encoding="utf-8")) if d]
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise errors.Invalid(f"{file} is no YAML: {' '.join(str(exc).split())}") from exc
    with app.hub() as hub:
        for document in documents:
            kind = document.get("kind") if isinstance(document, dict) else None
            if kind not in KINDS:
                raise errors.Invalid(f"{file}: every document must be an {' or a '.join(KINDS)}")
            made = hub.post(resources.path(KINDS[kind]), document)
            out.note(f'{kind} "{made["metadata"]["name"]}" created, in stage {made["spec"].get("stage", "Audit")}')


@policy.command()
@click.argument("name")
@click.option("--cluster", default="", help="Only what was found in this cluster.")
@click.option("--again", is_flag=True, help="Have it tried once more, and wait for what is found.")
@out.output_option("json", "yaml")
@pass_app
def trial(app: App, name: str, cluster: str, again: bool, output: str | None) -> None:
    """Tell what the policy NAME would break: the objects of each cluster that violate it, by the cluster's own judgement.

    A policy is tried by itself when a cluster has taken it over, and every few hours.
    """
    with app.hub() as hub:
        plural, document = _find(hub, name)
        if again:
            before = {t["spec"]["cluster"]: t["status"].get("at") for t in _trials(hub, document)}
            hub.merge_patch(resources.path(plural, name), {"metadata": {"annotations": {TRIAL: uuid.uuid4().hex}}})
            document = _wait(hub, plural, name, before)
        found = [t for t in _trials(hub, document) if not cluster or t["spec"]["cluster"] == cluster]
    if output:
        out.print_document({"items": found}, output)
        return
    _print_trials(document, found, cluster)


@policy.command()
@click.argument("name")
@click.option("--although-violated", is_flag=True, help="Even if objects violate it, or were not tried.")
@pass_app
def enforce(app: App, name: str, although_violated: bool) -> None:
    """Have the policy NAME refuse from now on what it warned of; not while objects violate it, or a cluster has not tried it."""
    with app.hub() as hub:
        plural, document = _find(hub, name)
        clusters = (document.get("status") or {}).get("clusters") or []
        broken = [c for c in clusters if c.get("violations")]
        untried = [c["name"] for c in clusters if c.get("violations") is None]
        if broken and not although_violated:
            total = sum(c["violations"] for c in broken)
            raise errors.Conflict(
                f'{total} objects violate it in {", ".join(c["name"] for c in broken)}: see "herdsman policy trial {name}", '
                "put them right, or say --although-violated"
            )
        if untried and not although_violated:
            raise errors.Conflict(f"it was not tried in {', '.join(untried)}: wait, or say --although-violated")
        version = document["metadata"]["resourceVersion"]
        hub.merge_patch(
            resources.path(plural, name), {"metadata": {"resourceVersion": version}, "spec": {"stage": "Enforce"}}
        )
    out.note(f'{document["kind"]} "{name}" is enforced, wherever it is')


@policy.command()
@click.argument("name")
@pass_app
def audit(app: App, name: str) -> None:
    """Have the policy NAME let through again what it refuses, with a warning."""
    with app.hub() as hub:
        plural, document = _find(hub, name)
        hub.merge_patch(resources.path(plural, name), {"spec": {"stage": "Audit"}})
    out.note(f'{document["kind"]} "{name}" warns, and refuses nothing')


@policy.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_app
def delete(app: App, name: str, yes: bool) -> None:
    """Delete the policy NAME; it goes from all clusters."""
    with app.hub() as hub:
        plural, document = _find(hub, name)
        count = len((document.get("status") or {}).get("clusters") or ())
        out.confirm(f'Delete {document["kind"]} "{name}"? Its {count} clusters allow again what it refuses.', yes)
        uid = str(document["metadata"].get("uid", ""))
        hub.delete(
            resources.path(plural, name),
            {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}},
        )
    out.note(f'{document["kind"]} "{name}" is deleted')


def _find(hub: Hub, name: str) -> tuple[str, Document]:
    """The policy of either kind. Raises NotFound; Conflict where both have the name."""
    found = []
    for plural in KINDS.values():
        try:
            found.append((plural, hub.get(resources.path(plural, name))))
        except errors.NotFound:
            continue
    if not found:
        raise errors.NotFound(f'no policy "{name}"')
    if len(found) > 1:
        raise errors.Conflict(f'an AdmissionPolicy and a PodSecurityTemplate are both called "{name}": use kubectl')
    return found[0]


def _trials(hub: Hub, document: Document) -> list[Document]:
    fields = f"spec.policy={document['metadata']['name']},spec.policyKind={document['kind']}"
    return sorted(resources.list_items(hub, "policytrials", fields=fields), key=lambda t: str(t["spec"]["cluster"]))


def _wait(hub: Hub, plural: str, name: str, before: dict[str, Any]) -> Document:
    """Until every connected cluster has tried anew, or long enough."""
    give_up = time.monotonic() + WAIT_S
    while True:
        document = hub.get(resources.path(plural, name))
        clusters = [c["name"] for c in (document.get("status") or {}).get("clusters") or () if c["state"] != "Pending"]
        now = {t["spec"]["cluster"]: t["status"].get("at") for t in _trials(hub, document)}
        if all(now.get(c) and now.get(c) != before.get(c) for c in clusters) or time.monotonic() >= give_up:
            return document
        time.sleep(LOOK_EVERY_S)


def _print_trials(document: Document, found: list[Document], cluster: str) -> None:
    rows = []
    tried = {t["spec"]["cluster"] for t in found}
    for item in found:
        status, name = item["status"], item["spec"]["cluster"]
        more = "" if status.get("complete") else ", and there are more"
        stale = (
            ""
            if status.get("generation") == document["metadata"].get("generation")
            else f" (version {status.get('generation')})"
        )
        told = f": {out.printable(status['message'])}" if status.get("message") else ""
        click.echo(
            f"{name}: {status.get('violations', 0)} of {status.get('looked', 0)} looked at{more}, tried at {status.get('at', '')}{stale}{told}"
        )
        for offender in status.get("offenders") or ():
            where = "/".join(filter(None, (offender.get("namespace"), offender.get("name"))))
            rows.append([name, offender.get("resource", ""), where, offender.get("message", "")])
    for entry in (document.get("status") or {}).get("clusters") or ():
        if entry["name"] not in tried and cluster in ("", entry["name"]):
            click.echo(
                f"{entry['name']}: not tried yet; {entry['state']} since {entry.get('since', '')} {out.printable(entry.get('message', ''))}".rstrip()
            )
    if rows:
        click.echo("\n" + out.render_table(["CLUSTER", "RESOURCE", "OBJECT", "MESSAGE"], rows))


def _count(cluster: Document) -> str:
    violations = cluster.get("violations")
    return "" if violations is None else json.dumps(violations)
