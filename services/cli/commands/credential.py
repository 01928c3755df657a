"""`herdsman credential`: the kubectl exec plug-in. Kubeconfigs name it, kubectl calls it; it prompts for nothing."""

from __future__ import annotations

import json
import os

import click

from services.cli.app import App, pass_app


@click.command()
@click.option(
    "--hub", metavar="URL", help="The hub, as it was signed in to; else what kubectl says, else the current one."
)
@click.option("--cluster", default="", metavar="NAME", help="Get a token that is good for this cluster alone.")
@click.option("--user", default="", metavar="NAME", help="Only the sign-in of this user.")
@pass_app
def credential(app: App, hub: str | None, cluster: str, user: str) -> None:
    """Print an ExecCredential (client.authentication.k8s.io/v1) with a token that lives for an hour at most.

    kubectl runs this before its calls, as a kubeconfig of "herdsman kubeconfig" says. The token is made with your sign-in, is
    kept (readable by you alone) until a third of its life is left, and ends when you sign out.

    \b
    Example:
      herdsman credential --hub https://hub.example:8443 --cluster prod
    """
    from services.cli import exec_credential as plugin
    from services.cli import settings
    from services.cli.token_store import TokenStore

    told = plugin.parse_exec_info(os.environ.get(plugin.EXEC_INFO, ""))
    if hub is None and told is not None:
        hub, cluster = told.hub, cluster or told.cluster
    url = settings.normalize_url(hub) if hub else app.server().url
    server = plugin.find_sign_in(settings.load_settings(), url, user)
    kept = plugin.get_token(server, cluster, TokenStore(url), plugin.ask_hub, _warn)
    click.echo(json.dumps(plugin.render(kept)))


def _warn(sentence: str) -> None:
    click.echo(f"herdsman: {sentence}", err=True)
