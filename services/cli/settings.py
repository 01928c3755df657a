"""Which hubs this person signed in to: `config.json` (0600) in `$HERDSMAN_CONFIG_DIR` or the platform's config folder.

Each hub is a named context; one is current. For jobs without a sign-in, `HERDSMAN_URL`, `HERDSMAN_TOKEN` and
`HERDSMAN_CA_FILE` replace the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from libs.common import errors
from services.cli.files import explain_os_error, read_json, write_private


@dataclass(frozen=True, slots=True)
class Server:
    """One hub. `ca` is the PEM text itself, so that a moved file breaks nothing; empty = the system's trust store."""

    name: str
    url: str
    ca: str = ""
    user: str = ""
    token: str = field(default="", repr=False)
    expires_at: str = ""


@dataclass(slots=True)
class Settings:
    """The content of config.json."""

    path: Path
    current: str = ""
    servers: dict[str, Server] = field(default_factory=dict)

    def put(self, server: Server, *, make_current: bool = True) -> None:
        self.servers[server.name] = server
        if make_current or not self.current:
            self.current = server.name

    def remove(self, name: str) -> None:
        self.servers.pop(name, None)
        if self.current == name:
            self.current = next(iter(self.servers), "")

    def save(self) -> None:
        import json

        servers = {name: {k: v for k, v in asdict(s).items() if k != "name" and v} for name, s in self.servers.items()}
        write_private(
            self.path, json.dumps({"version": 1, "current": self.current, "servers": servers}, indent=2) + "\n"
        )


def config_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the settings lie."""
    if explicit := environ.get("HERDSMAN_CONFIG_DIR"):
        return Path(explicit).expanduser() / "config.json"
    import platformdirs

    return Path(platformdirs.user_config_dir("herdsman", appauthor=False)) / "config.json"


def load_settings(path: Path | None = None) -> Settings:
    """The settings, empty ones at first. Raises Invalid when the file is damaged."""
    path = path or config_file()
    document = read_json(path)
    known = {f.name for f in fields(Server)} - {"name"}
    servers: dict[str, Server] = {}
    raw: Any = document.get("servers", {})
    if not isinstance(raw, dict):
        raise errors.Invalid(f"{path}: servers must be an object: delete the file and sign in again")
    for name, value in raw.items():
        if not isinstance(value, dict) or not value.get("url"):
            raise errors.Invalid(f'{path}: server "{name}" has no url: delete the file and sign in again')
        servers[name] = Server(name=name, **{k: str(v) for k, v in value.items() if k in known})
    return Settings(path, str(document.get("current", "")), servers)


def choose_server(context: str | None, environ: Mapping[str, str] = os.environ) -> Server:
    """The hub to speak to: the named context, else the environment's, else the current one. Raises Unauthenticated, NotFound."""
    if not context and (url := environ.get("HERDSMAN_URL")):
        ca_file = environ.get("HERDSMAN_CA_FILE", "")
        return Server(
            "environment",
            normalize_url(url),
            read_ca(Path(ca_file)) if ca_file else "",
            token=environ.get("HERDSMAN_TOKEN", ""),
        )
    settings = load_settings()
    if context:
        if context not in settings.servers:
            names = ", ".join(settings.servers) or "none yet"
            raise errors.NotFound(
                f'no hub is called "{context}" here (known: {names}): see "herdsman context list", or sign in with "herdsman login URL"'
            )
        return settings.servers[context]
    if settings.current not in settings.servers:
        raise errors.Unauthenticated('you are not signed in to a hub: run "herdsman login URL"')
    return settings.servers[settings.current]


def normalize_url(text: str) -> str:
    """`https://host[:port]`, without a trailing slash; a bare host gets https. Raises Invalid."""
    from urllib.parse import urlsplit

    text = text.strip()
    parts = urlsplit(text if "://" in text else f"https://{text}")
    try:
        port = parts.port
    except ValueError as error:
        raise errors.Invalid(f'"{text}" has no valid port: write it as https://hub.example:8443') from error
    if parts.scheme != "https":
        raise errors.Invalid(f"the hub speaks only TLS: write the address as https://{parts.netloc or text}")
    if not parts.hostname or parts.username or parts.query or parts.fragment or parts.path.strip("/"):
        raise errors.Invalid(f'"{text}" is not the address of a hub: write it as https://hub.example:8443')
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"https://{host}" + (f":{port}" if port else "")


def read_ca(path: Path) -> str:
    """The certificates in a PEM file. Raises Invalid when there are none."""
    try:
        text = path.expanduser().read_text()
    except OSError as error:
        raise explain_os_error("read", path, error) from error
    except UnicodeDecodeError as error:
        raise errors.Invalid(f"{path} is not a PEM file: convert it with openssl x509 -inform der") from error
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise errors.Invalid(f"{path} holds no PEM certificate")
    return text
