"""`herdsman backup` and `herdsman restore`: the hub of this machine, stopped, as one file. The work is in `services.cli.up.archive`."""

from __future__ import annotations

from pathlib import Path

import click

from services.cli import output as out

_data_dir = click.option(
    "--data-dir", type=click.Path(path_type=Path, file_okay=False), help="The hub's folder; as for herdsman up."
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_data_dir
def backup(file: Path, data_dir: Path | None) -> None:
    """Save the stopped hub of this machine into FILE: everything it knows, its keys and certificates.

    The file is as secret as the hub itself. Logs and the local cluster's Kubernetes are not in it.

    \b
    Example:
      herdsman backup hub-backup.tar.gz
    """
    from services.cli.up.archive import write_archive
    from services.cli.up.layout import Layout, default_data_dir

    layout = Layout((data_dir or default_data_dir(Path.cwd())).expanduser().absolute())
    count = write_archive(layout, file)
    out.note(
        f"saved {count} files of {layout.root} into {file} ({file.stat().st_size / 2**20:.1f} MiB); it holds keys: keep it private"
    )


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_data_dir
@click.option("--replace", is_flag=True, help="Move the hub that is there aside first.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def restore(file: Path, data_dir: Path | None, replace: bool, yes: bool) -> None:
    """Bring a hub back from FILE; agents and clients find it as they knew it.

    \b
    Example:
      herdsman restore hub-backup.tar.gz --replace
    """
    from services.cli.up.archive import read_archive
    from services.cli.up.layout import Layout, default_data_dir

    layout = Layout((data_dir or default_data_dir(Path.cwd())).expanduser().absolute())
    if replace:
        out.confirm(f"Move the hub in {layout.root} aside and put the one of {file} there?", yes)
    aside = read_archive(layout, file, replace=replace)
    out.note(
        f"restored into {layout.root}"
        + (f"; the old one is {aside}" if aside else "")
        + '; start it with "herdsman up"'
    )
