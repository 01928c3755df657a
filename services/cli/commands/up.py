"""`herdsman up`: the command line of the supervisor in `services.cli.up`, which is imported only when it runs."""

from __future__ import annotations

from pathlib import Path

import click

LOCAL = "local"


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where everything is kept; .data of this checkout, else herdsman in your state folder.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=8443, show_default=True, help="Public port.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 lets other machines in."
)
@click.option(
    "--local-cluster",
    metavar="NAME",
    help=f'Name of the local cluster ("{LOCAL}" without this option); brings a deleted one back.',
)
@click.option("--no-local-cluster", is_flag=True, help="Only the hub.")
@click.option(
    "--admin-user", default="admin", show_default=True, help="Name of the first user; counts at the first start only."
)
@click.option(
    "--workers",
    type=click.IntRange(0, 256),
    default=1,
    show_default=True,
    help="Processes of the front door that share the port; 0 = one for each core.",
)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def up(
    data_dir: Path | None,
    port: int,
    host: str,
    local_cluster: str | None,
    no_local_cluster: bool,
    admin_user: str,
    workers: int,
    log_level: str,
) -> None:
    """Run a whole hub on this machine, with a Kubernetes cluster where its programs can be had.

    Runs until Ctrl-C; the next start finds everything again.

    \b
    Examples:
      herdsman up
      herdsman up --host 0.0.0.0 --port 443 --no-local-cluster
    """
    if local_cluster and no_local_cluster:
        raise click.UsageError("--local-cluster and --no-local-cluster exclude each other")
    import asyncio

    from services.cli.up.layout import default_data_dir
    from services.cli.up.preparation import Options
    from services.cli.up.progress import Progress
    from services.cli.up.run import run

    options = Options(
        data_dir=(data_dir or default_data_dir(Path.cwd())).expanduser().absolute(),
        host=host,
        port=port,
        admin_user=admin_user,
        log_level=log_level,
        local_cluster=None if no_local_cluster else local_cluster or LOCAL,
        insist=local_cluster is not None,
        workers=workers,
    )
    asyncio.run(run(options, Progress()))
