"""What stands on the terminal when the hub is ready: where it is, how to get in, what to do next. Pure, and tested as printed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from services.cli.up.layout import Layout


def own_command() -> str:
    """How a person calls this program from the present shell."""
    on_path = shutil.which("herdsman")
    beside = Path(sys.executable).with_name("herdsman")
    if on_path and (not beside.exists() or Path(on_path).resolve() == beside.resolve()):
        return "herdsman"
    return shlex.quote(_short(beside)) if beside.exists() else f"{shlex.quote(sys.executable)} -m services.cli"


def next_commands(layout: Layout, url: str, admin_user: str) -> list[str]:
    """Three commands that work as they stand, in this order."""
    me = own_command()
    return [
        f"{me} login {url} --ca-file {_quoted(layout.ca_file)} --user {shlex.quote(admin_user)}"
        + (f" --password-file {_quoted(layout.admin_password)}" if layout.admin_password.exists() else ""),
        f"{me} cluster list",
        f"{me} kubeconfig --merge",
    ]


def greet(layout: Layout, url: str, admin_user: str, local_cluster: str | None, seconds: float) -> str:
    """The whole text. The local cluster, if any, is told about afterwards."""
    password = (
        f"in {layout.admin_password}, until you change it"
        if layout.admin_password.exists()
        else "the one that you chose"
    )
    lines = [
        f"hub ready in {seconds:.1f} s",
        f"  address    {url}",
        f"  CA         {layout.ca_file}",
        f"  user       {admin_user}",
        f"  password   {password}",
        f"  logs       {layout.logs}",
        "try next:",
        *(f"  {command}" for command in next_commands(layout, url, admin_user)),
        "Ctrl-C stops it; everything is kept."
        + (f' Cluster "{local_cluster}" is coming up …' if local_cluster else ""),
    ]
    return "\n".join(lines)


def _quoted(path: Path) -> str:
    return shlex.quote(_short(path))


def _short(path: Path) -> str:
    """Relative where that is shorter and stays below the present folder."""
    try:
        relative = path.relative_to(Path.cwd())
    except ValueError:
        return str(path)
    return str(relative) if os.sep in str(relative) else f".{os.sep}{relative}"
