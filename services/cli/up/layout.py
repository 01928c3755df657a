"""Every path of a data folder. The one place that names files in it; used by everything else in `up` and by `backup`."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.cli.files import explain_os_error

_SOCKET_PATH_LIMIT = 100
"""The kernel takes 107 bytes (unix(7)); some are left for a temporary name beside it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A data folder. Whoever can read it can act as the hub, so it is 0700."""

    root: Path

    @property
    def record(self) -> Path:
        """What runs now: address, files, pids."""
        return self.root / "herdsman.json"

    @property
    def lock(self) -> Path:
        """Held by `up` as long as it lives; holds its pid."""
        return self.root / "lock"

    @property
    def ports(self) -> Path:
        return self.root / "ports.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def ca_file(self) -> Path:
        """What clients and agents are given; public. The authority that signs is the first; while it is replaced there are two."""
        return self.pki / "ca.crt"

    @property
    def ca_key(self) -> Path:
        return self.pki / "ca.key"

    @property
    def next_ca_file(self) -> Path:
        """The authority that will sign next, announced already."""
        return self.pki / "ca-next.crt"

    @property
    def next_ca_key(self) -> Path:
        return self.pki / "ca-next.key"

    @property
    def server_certificate(self) -> Path:
        return self.pki / "server.crt"

    @property
    def server_key(self) -> Path:
        return self.pki / "server.key"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def secrets_keys(self) -> Path:
        """Seal provider secrets in the store; for identity alone."""
        return self.keys / "secrets.keys"

    @property
    def envelope_key(self) -> Path:
        """Signs who calls; for the front door alone."""
        return self.keys / "envelope.key"

    @property
    def envelope_public_key(self) -> Path:
        return self.keys / "envelope.pub"

    @property
    def nats_keys(self) -> Path:
        return self.keys / "nats"

    @property
    def admin_password(self) -> Path:
        """The first password of the first user; worth nothing once it was changed."""
        return self.root / "admin-password"

    @property
    def nats(self) -> Path:
        return self.root / "nats"

    @property
    def nats_config(self) -> Path:
        return self.nats / "nats.conf"

    @property
    def nats_store(self) -> Path:
        """The system of record."""
        return self.nats / "jetstream"

    @property
    def configs(self) -> Path:
        return self.root / "config"

    def config(self, service: str) -> Path:
        return self.configs / f"{service}.json"

    @property
    def health(self) -> Path:
        return self.root / "health"

    def health_file(self, service: str) -> Path:
        """Where a service writes the address of its health endpoints."""
        return self.health / service

    @property
    def kubelab(self) -> Path:
        return self.root / "kubelab"

    @property
    def local_record(self) -> Path:
        """What became of the local cluster: imported, or deleted and not to be imported again."""
        return self.root / "local-cluster.json"

    @property
    def agent(self) -> Path:
        """State of the local cluster's agent."""
        return self.root / "agent"

    @property
    def direct(self) -> Path:
        """Kubeconfigs of clusters that the front door reaches itself; people put them there."""
        return self.root / "direct"

    @property
    def audit(self) -> Path:
        """Audit events that the bus has not taken yet."""
        return self.root / "audit"

    @property
    def runtime(self) -> Path:
        """For Unix sockets, whose paths must be short."""
        inside = self.root / "run"
        if len(str(inside / "gateway.sock").encode()) <= _SOCKET_PATH_LIMIT:
            return inside
        digest = hashlib.sha256(str(self.root).encode()).hexdigest()[:12]
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        return Path(base) / f"herdsman-{os.getuid()}-{digest}"

    @property
    def gateway_socket(self) -> Path:
        return self.runtime / "gateway.sock"

    def make(self) -> None:
        """Create the folders, private. Raises Unavailable when that is impossible."""
        folders = (
            self.root, self.logs, self.pki, self.keys, self.nats_keys, self.nats, self.nats_store, self.configs,
            self.health, self.runtime, self.agent, self.direct, self.audit,
        )  # fmt: skip
        for folder in folders:
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                # In a shared temporary folder somebody else may have made it first, to read what we put there.
                if folder.stat().st_uid != os.getuid():
                    raise PermissionError(1, "it belongs to another user", str(folder))
            except OSError as error:
                raise explain_os_error("use the folder", folder, error) from error
        self.root.chmod(0o700)
        self.runtime.chmod(0o700)


def default_data_dir(start: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """`.data` of the checkout around `start`, else herdsman below `$XDG_STATE_HOME` or `~/.local/state`."""
    for folder in (start, *start.parents):
        project = folder / "pyproject.toml"
        if project.is_file() and 'name = "herdsman"' in project.read_text(errors="replace"):
            return folder / ".data"
    return Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "herdsman"
