"""Merging a hub's kubeconfig into one that a person has: only our own entries are touched. Pure, but for `merge_into_file`.

Ours carry an extension that names the hub, so that an entry that somebody wrote by hand is never overwritten, and another
hub's entries neither. `current-context` changes only when asked to. Used by `commands/kubeconfig`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from libs.common import errors
from services.cli.files import explain_os_error, lock_beside, write_private

Config = dict[str, Any]
EXTENSION = "herdsman.dev/hub"
EXEC_VERSION = "client.authentication.k8s.io/v1"
INSTALL_HINT = (
    "This kubeconfig needs the command herdsman: install it, put it on the PATH, and sign in with: herdsman login URL"
)
_SECTIONS = (("clusters", "cluster"), ("users", "user"), ("contexts", "context"))
_EMPTY: Config = {"apiVersion": "v1", "kind": "Config", "preferences": {}, "clusters": [], "users": [], "contexts": []}


def mark(config: Config, hub: str) -> Config:
    """A copy in which every entry says that it came from `hub`."""
    marked = copy.deepcopy(config)
    for section, inner in _SECTIONS:
        for entry in marked.get(section) or ():
            entry.setdefault(inner, {})["extensions"] = [{"name": EXTENSION, "extension": {"hub": hub}}]
    return marked


def merge(existing: Config | None, fresh: Config, hub: str, *, set_current: str = "") -> Config:
    """`existing` with the entries of `fresh`. Raises Conflict where a name belongs to somebody else, NotFound for `set_current`."""
    merged = copy.deepcopy(existing) if existing else copy.deepcopy(_EMPTY)
    incoming = mark(fresh, hub)
    for section, inner in _SECTIONS:
        entries = merged.get(section)
        if entries is None:
            entries = merged[section] = []
        if not isinstance(entries, list):
            raise errors.Invalid(f'"{section}" in the kubeconfig is not a list: repair the file first')
        places = {entry.get("name"): i for i, entry in enumerate(entries)}
        for entry in incoming.get(section) or ():
            name = entry["name"]
            if name not in places:
                entries.append(entry)
                continue
            if _hub_of(entries[places[name]].get(inner)) != hub:
                raise errors.Conflict(
                    f'the kubeconfig has a {inner} "{name}" that did not come from {hub}: rename it, or write to a file of its own with --output'
                )
            entries[places[name]] = entry
    _drop_unused_users(merged, hub)
    if set_current:
        if set_current not in {entry["name"] for entry in incoming.get("contexts") or ()}:
            raise errors.NotFound(f'there is no context "{set_current}" in what the hub gave you')
        merged["current-context"] = set_current
    return merged


def _drop_unused_users(config: Config, hub: str) -> None:
    """A user of ours whom no context names any more may hold a token that is still good."""
    used = {(entry.get("context") or {}).get("user") for entry in config.get("contexts") or ()}
    config["users"] = [
        entry for entry in config["users"] if entry.get("name") in used or _hub_of(entry.get("user")) != hub
    ]


def _hub_of(inner: Mapping[str, Any] | None) -> str:
    for extension in (inner or {}).get("extensions") or ():
        if extension.get("name") == EXTENSION:
            return str((extension.get("extension") or {}).get("hub", ""))
    return ""


def add_plugin(config: Config, hub: str, user: str, command: str, environ: Mapping[str, str]) -> Config:
    """A copy without tokens: each context's user asks `herdsman credential` for a token that is good for that cluster alone."""
    filled = copy.deepcopy(config)
    servers = {str(e["name"]): str(e["cluster"]["server"]) for e in filled.get("clusters") or ()}
    users: dict[str, Config] = {}
    for entry in filled.get("contexts") or ():
        context = entry["context"]
        _, _, cluster = servers[str(context["cluster"])].partition("/k8s/clusters/")
        if cluster:
            context["user"] = f"{context['user']}@{cluster}"
        arguments = [
            "credential",
            "--hub",
            hub,
            *(["--user", user] if user else []),
            *(["--cluster", cluster] if cluster else []),
        ]
        users[context["user"]] = {
            "apiVersion": EXEC_VERSION, "command": command, "args": arguments,
            "env": [{"name": name, "value": value} for name, value in environ.items()],
            "interactiveMode": "IfAvailable", "provideClusterInfo": False, "installHint": INSTALL_HINT,
        }  # fmt: skip
    filled["users"] = [{"name": name, "user": {"exec": plugin}} for name, plugin in users.items()]
    return filled


def context_names(config: Config) -> list[str]:
    return [str(entry["name"]) for entry in config.get("contexts") or ()]


def default_file(environ: Mapping[str, str] = os.environ) -> Path:
    """The file that a merge goes to: the first that `$KUBECONFIG` lists and exists, else its first, else ~/.kube/config."""
    listed = [Path(part).expanduser() for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    if not listed:
        return Path.home() / ".kube" / "config"
    return next((file for file in listed if file.exists()), listed[0])


def parse(text: str, origin: str) -> Config | None:
    """The kubeconfig in a text, None for an empty one. Raises Invalid."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where is not None else ""
        raise errors.Invalid(f"{origin} is not YAML{line}: repair it first") from error
    if document is None:
        return None
    if not isinstance(document, dict) or document.get("kind", "Config") != "Config":
        raise errors.Invalid(f"{origin} is not a kubeconfig")
    return document


def render(config: Config) -> str:
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def merge_into_file(file: Path, fresh: Config, hub: str, *, set_current: str = "") -> Path | None:
    """Merge under the lock that kubectl takes too; the file as it was is kept beside it. Returns that backup, if one was made."""
    # Through a link, the link's target is replaced and the link stays.
    target = file.resolve()
    with lock_beside(target):
        try:
            text = target.read_text()
        except FileNotFoundError:
            text = ""
        except OSError as error:
            raise explain_os_error("read", target, error) from error
        rendered = render(merge(parse(text, str(file)), fresh, hub, set_current=set_current))
        if rendered == text:
            return None
        backup = target.with_name(f"{target.name}.before-herdsman") if text else None
        if backup is not None:
            write_private(backup, text)
        write_private(target, rendered)
        return backup
