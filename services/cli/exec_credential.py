"""What kubectl asks before a call: a token for one cluster, from the store or from the hub, as an ExecCredential (v1).

The protocol: https://kubernetes.io/docs/reference/config-api/client-authentication.v1/. kubectl waits for this, so nothing
heavy is imported before the hub has to be asked. Called by `commands/credential`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from libs.common import errors
from services.cli.settings import Server, Settings
from services.cli.token_store import CannotLock, Kept, TokenStore

API_VERSION = "client.authentication.k8s.io/v1"  # as in kubeconfigs, which this does not import: it brings YAML
EXEC_INFO = "KUBERNETES_EXEC_INFO"
_CLUSTERS = "/k8s/clusters/"
_LEAST_S = 10.0
"""With less life than this a kept token is no help when the hub can't be reached."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose credential: at which hub, for which cluster (empty = the hub itself)."""

    hub: str
    cluster: str


def parse_exec_info(text: str) -> Wanted | None:
    """What kubectl says of the call, if it says which server it is for (`provideClusterInfo`). Raises Invalid."""
    if not text:
        return None
    try:
        info = json.loads(text)
        version, server = info["apiVersion"], str((info.get("spec", {}).get("cluster") or {}).get("server", ""))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise errors.Invalid(f"{EXEC_INFO} can't be understood: it is set by kubectl, and not by hand") from error
    if version != API_VERSION:
        raise errors.Invalid(
            f'the kubeconfig asks for "{version}": fetch it again with "herdsman kubeconfig" ({API_VERSION})'
        )
    hub, _, cluster = server.partition(_CLUSTERS)
    return Wanted(hub.rstrip("/"), cluster.strip("/")) if server else None


def find_sign_in(known: Settings, hub: str, user: str) -> Server:
    """The sign-in at that hub (as that user, if one is named), the current one first. Raises Unauthenticated with what to do."""
    for server in sorted(known.servers.values(), key=lambda s: s.name != known.current):
        if server.url == hub and server.token and user in ("", server.user):
            return server
    who = f" as {user}" if user else ""
    raise errors.Unauthenticated(f"you are not signed in to {hub}{who}: run: herdsman login {hub}")


def get_token(
    server: Server, cluster: str, store: TokenStore, ask: Callable[[Server, str], Kept], warn: Callable[[str], None],
    now: Callable[[], float] = time.time,
) -> Kept:  # fmt: skip
    """A token with life left: the kept one, or a new one that one process alone asks for. Raises Unauthenticated, Unavailable."""
    file = store.file(server.token, cluster)
    kept = store.read(file)
    if kept is not None and kept.is_fresh(now()):
        return kept
    try:
        with store.lock(file):
            kept = store.read(file)
            if kept is not None and kept.is_fresh(now()):
                return kept
            try:
                fresh = ask(server, cluster)
            except (errors.Unavailable, errors.Timeout, errors.TooManyRequests):
                if kept is not None and kept.left_s(now()) > _LEAST_S:
                    return kept
                raise
            try:
                store.write(file, fresh)
            except errors.Unavailable as error:
                warn(f"the token is not kept, so the next call asks the hub again: {error.message}")
            return fresh
    except CannotLock as error:
        # A home that can't be written to: kubectl works, with one more question to the hub each time.
        warn(f"the token is not kept, so the next call asks the hub again: {error.message}")
        return ask(server, cluster)


def ask_hub(server: Server, cluster: str) -> Kept:
    """A new token from the hub, made with the sign-in. Raises Unauthenticated with what to do."""
    from email.utils import parsedate_to_datetime

    from services.cli import resources
    from services.cli.hub import Hub

    spec = {"purpose": "exec", "clusters": [cluster] if cluster else [], "description": "kubectl"}
    with Hub(server) as hub:
        before = time.time()
        try:
            answer = hub.post(
                resources.path("tokenrequests"),
                {"apiVersion": resources.API_VERSION, "kind": "TokenRequest", "spec": spec},
            )
        except errors.Unauthenticated as error:
            raise errors.Unauthenticated(
                f"your sign-in at {server.url} has ended: run: herdsman login {server.url}"
            ) from error
        date = hub.last_date
    status = answer.get("status") or {}
    try:
        ends = datetime.fromisoformat(status["expiresAt"]).timestamp()
        # Its life by the hub's clock counts from now by ours, however wrong this machine's clock is.
        hub_now = parsedate_to_datetime(date).timestamp() if date else before
        return Kept(str(status["token"]), before, before + ends - hub_now)
    except (KeyError, ValueError, TypeError) as error:
        raise errors.Unavailable(
            f"{server.url} sent no token: check that hub and herdsman have the same version (herdsman version --hub)"
        ) from error


def render(kept: Kept) -> dict[str, Any]:
    """The answer to kubectl, which asks again when the time in it has come."""
    ends = datetime.fromtimestamp(int(kept.ends_at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": API_VERSION, "kind": "ExecCredential",
        "status": {"token": kept.token, "expirationTimestamp": ends},
    }  # fmt: skip
