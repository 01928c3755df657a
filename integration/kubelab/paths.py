"""Where Kubelab keeps things: the cache of programs and images, and the folder of each cluster.

Used by every other module here; `Layout` is the one place that names files inside a cluster's folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libs.common.errors import Invalid

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """What can be made again: `$HERDSMAN_CACHE_DIR`, else herdsman below `$XDG_CACHE_HOME` or `~/.cache`."""
    if explicit := environ.get("HERDSMAN_CACHE_DIR"):
        return Path(explicit) / "kubelab"
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "herdsman" / "kubelab"


def default_state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where clusters live unless `--dir` says otherwise."""
    return Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "herdsman" / "kubelab"


def check_name(name: str) -> None:
    """A cluster's name is also its node's name and part of certificates: a short DNS label."""
    if not _NAME.fullmatch(name):
        raise Invalid(f'cluster name "{name}" must be 1 to 40 lower-case letters, digits and inner hyphens')


@dataclass(frozen=True, slots=True)
class Layout:
    """The folder of one cluster. Everything below `root` belongs to it alone and may be deleted with it."""

    name: str
    root: Path

    @classmethod
    def of(cls, name: str, directory: Path) -> Layout:
        check_name(name)
        return cls(name, directory.expanduser().resolve() / name)

    @property
    def instance_id(self) -> str:
        """Eight characters that differ between two clusters of one name in two folders: names kernel objects."""
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:8]

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def etcd_data(self) -> Path:
        return self.root / "etcd"

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def node(self) -> Path:
        return self.root / "node"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.root / "kubeconfig"

    @property
    def lock(self) -> Path:
        """Held by the supervisor as long as it lives: who holds it runs the cluster."""
        return self.root / "lock"

    @property
    def run_file(self) -> Path:
        """What runs now: processes with their start times, addresses, readiness."""
        return self.root / "run.json"

    @property
    def ports_file(self) -> Path:
        return self.root / "ports.json"

    @property
    def subnet_file(self) -> Path:
        return self.root / "subnet.json"

    def make(self) -> None:
        for folder in (self.root, self.pki, self.etcd_data, self.config, self.logs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root.chmod(0o700)


def write_private(path: Path, content: str | bytes) -> None:
    """Replaces a file in one step, readable by its owner only: a reader sees the old content or the new."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The document in `path`; an empty one if there is none."""
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Invalid(f"{path} is not JSON: delete it, it is made again") from error
    if not isinstance(document, dict):
        raise Invalid(f"{path} does not hold a JSON object: delete it, it is made again")
    return document
