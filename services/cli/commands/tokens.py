"""`herdsman token`: tokens for scripts and workloads. A token's secret is shown once, on stdout, and kept nowhere."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from libs.common import errors
from services.cli import output as out
from services.cli import resources
from services.cli.app import App, pass_app
from services.cli.durations import parse_duration
from services.cli.files import read_secret

if TYPE_CHECKING:
    from services.cli.hub import Document, Hub

EXCHANGE_S = 60.0


@click.group()
def token() -> None:
    """List, create, exchange and revoke tokens."""


@token.command("list")
@click.option("--user", metavar="NAME", help="Only those of this user.")
@out.output_option("wide", "json", "yaml", "name")
@pass_app
def list_tokens(app: App, user: str | None, output: str | None) -> None:
    """List the tokens that you may see; their secrets are in no list."""
    with app.hub() as hub:
        out.print_list(hub, "tokens", output, fields=f"spec.user={user}" if user else "")


@token.command()
@click.option("--description", default="", help="What it is for.")
@click.option(
    "--cluster", "clusters", multiple=True, metavar="NAME", help="Good for this cluster only; may be repeated."
)
@click.option("--for", "user", default="", metavar="NAME", help="For this service user, instead of yourself.")
@click.option(
    "--project", "projects", multiple=True, metavar="NAME", help="Good for this project only; may be repeated."
)
@click.option("--read-only", is_flag=True, help="Good for reading only.")
@click.option("--ttl", metavar="TIME", help="How long it lives, such as 30d; the hub cuts what is too long.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Print the answer of the API.")
@pass_app
def create(
    app: App,
    description: str,
    user: str,
    clusters: tuple[str, ...],
    projects: tuple[str, ...],
    read_only: bool,
    ttl: str | None,
    output: str | None,
) -> None:
    """Create a token with your own rights (or those of a service user), or fewer; print it.

    \b
    Example:
      herdsman token create --description ci --cluster prod --read-only --ttl 30d > ci-token
      herdsman token create --for deploy-bot --project shop --ttl 30d > ci-token
    """
    spec: dict[str, object] = {
        "description": description,
        "clusters": list(clusters),
        "projects": list(projects),
        "user": user,
        "readOnly": read_only,
    }
    if ttl:
        spec["ttlSeconds"] = parse_duration(ttl)
    with app.hub() as hub:
        answer = hub.post(
            resources.path("tokenrequests"), {"apiVersion": resources.API_VERSION, "kind": "TokenRequest", "spec": spec}
        )
    status = answer.get("status") or {}
    if not status.get("token"):
        raise errors.Unavailable(
            "the hub sent no token: check that hub and herdsman have the same version (herdsman version --hub)"
        )
    if output:
        out.print_document(answer, output)
        return
    click.echo(status["token"])
    out.note(f"shown this once; good until {status.get('expiresAt', 'it is revoked')}")


@token.command()
@click.argument("names", nargs=-1, required=True)
@pass_app
def revoke(app: App, names: tuple[str, ...]) -> None:
    """Revoke tokens by NAME; whatever uses them is cut off within a second."""
    with app.hub() as hub:
        for name in names:
            hub.delete(resources.path("tokens", name))
            out.note(f"token {name} is revoked")


@token.command()
@click.option(
    "--subject-token-file",
    type=click.Path(path_type=Path),
    required=True,
    help="File with the token that your platform signed, - for stdin.",
)
@click.option("--resource", default="", metavar="NAME", help="The FederatedCredential that is meant, if several fit.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Print the answer of the hub.")
@pass_app
def exchange(app: App, subject_token_file: Path, resource: str, output: str | None) -> None:
    """Exchange a workload's own token for a short-lived one of the hub; print it. Nobody needs to sign in.

    \b
    Example:
      export HERDSMAN_URL=https://hub.example
      export HERDSMAN_TOKEN=$(herdsman token exchange --subject-token-file /var/run/secrets/hub/token)
    """
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": read_secret(subject_token_file),
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "resource": resource,
    }
    with app.hub(replace(app.server(), token="")) as hub:
        answer = _exchange(hub, form)
    if not answer.get("access_token"):
        raise errors.Unavailable(
            "the hub sent no token: check that hub and herdsman have the same version (herdsman version --hub)"
        )
    if output:
        out.print_document(answer, output)
        return
    click.echo(answer["access_token"])
    out.note(f"good for {answer.get('expires_in')} s")


def _exchange(hub: Hub, form: Document) -> Document:
    """The hub's answer. Many jobs begin at the same moment behind one address: who is told to come again does so, for `EXCHANGE_S`."""
    from services.cli.hub import FORM, Unusable

    until = time.monotonic() + EXCHANGE_S
    while True:
        try:
            return hub.request("POST", "/v1/token", body=form, content_type=FORM)
        except Unusable:
            raise
        except (errors.TooManyRequests, errors.Unavailable):
            if time.monotonic() >= until:
                raise
        time.sleep(random.uniform(1, 5))
