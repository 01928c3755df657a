"""Importing the local cluster over the hub's public API, with a short-lived sign-in of the first administrator.

Used by `local`. Once the administrator has changed the password, nothing here can sign in any more, and need not: an agent
that is registered keeps its own identity. Then progress is read from nowhere and only said to be under way.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from libs.common import errors
from services.cli import resources
from services.cli.files import read_secret
from services.cli.hub import Document, Hub
from services.cli.settings import Server
from services.cli.up.layout import Layout
from services.cli.up.progress import Progress
from services.cli.waiting import explain_phase

_ACTIVE_WITHIN_S = 120.0
_TIMEOUT_S = 5.0
"""Short, since a stop waits for the call that is under way; the hub is on this machine."""


class Importer:
    """One sign-in, used by one task at a time; `close` revokes it."""

    def __init__(self, layout: Layout, hub_url: str, admin_user: str) -> None:
        self._layout = layout
        self._server = Server("local", hub_url, user=admin_user)
        self._hub: Hub | None = None

    async def register(self, name: str) -> str:
        """Make the Cluster unless it is there, and return a fresh registration token for its agent."""
        return await asyncio.to_thread(self._register, name)

    async def wait_active(self, name: str, progress: Progress) -> str:
        """Returns what to say about the cluster: that it is active, or what it is waiting for."""
        key = f"cluster-{name}"
        began = time.monotonic()
        try:
            while True:
                try:
                    cluster = await asyncio.to_thread(self._get, name)
                except (errors.Unauthenticated, errors.Denied):
                    return "is being connected by its agent"
                except errors.RETRYABLE as error:
                    phase, reason = "unknown", error.message
                else:
                    phase, reason = _phase(cluster), explain_phase(cluster)
                if phase == "Active":
                    version = (cluster.get("status") or {}).get("kubernetesVersion")
                    return "is active" + (f", Kubernetes {version}" if version else "")
                if time.monotonic() - began > _ACTIVE_WITHIN_S:
                    return f"is not active yet ({reason}); see {self._layout.logs / 'agent.log'}"
                progress.busy(key, f'cluster "{name}": {reason}')
                await asyncio.sleep(0.5)
        finally:
            progress.done(key)

    async def close(self) -> None:
        """Revoke the sign-in."""
        if self._hub is not None:
            await asyncio.to_thread(self._sign_out)

    def _register(self, name: str) -> str:
        hub = self._signed_in()
        try:
            hub.post(resources.path("clusters"), resources.new("Cluster", name, {"imported": {}}))
        except errors.AlreadyExists:
            # Of an earlier start that was cut; the fresh token replaces whatever that one issued.
            if (hub.get(resources.path("clusters", name)).get("metadata") or {}).get("deletionTimestamp"):
                raise errors.Conflict(f'cluster "{name}" is still being deleted: start again when it is gone') from None
        issued = hub.post(
            resources.path("clusters", name, "registration"),
            {"apiVersion": resources.API_VERSION, "kind": "ClusterRegistration", "spec": {}},
        )
        token = (issued.get("status") or {}).get("token")
        if not token:
            raise errors.Unavailable("the hub issued no registration token")
        return str(token)

    def _get(self, name: str) -> Document:
        return self._signed_in().get(resources.path("clusters", name))

    def _signed_in(self) -> Hub:
        if self._hub is not None:
            return self._hub
        if not self._layout.admin_password.exists():
            raise errors.Unauthenticated(f"{self._layout.admin_password} is gone, so nobody can sign in for it")
        anonymous = replace(self._server, ca=self._layout.ca_file.read_text())
        body = {
            "user": self._server.user,
            "password": read_secret(self._layout.admin_password),
            "description": "herdsman up",
        }
        try:
            with Hub(anonymous, timeout_s=_TIMEOUT_S) as hub:
                token = str(hub.post("/v1/login", body)["token"])
        except errors.Unauthenticated as error:
            raise errors.Unauthenticated(
                f"the password of {self._server.user} was changed, so nobody can sign in for it; "
                "import it yourself with herdsman cluster import"
            ) from error
        self._hub = Hub(replace(anonymous, token=token), timeout_s=_TIMEOUT_S)
        return self._hub

    def _sign_out(self) -> None:
        hub, self._hub = self._hub, None
        if hub is None:
            return
        try:
            hub.post("/v1/logout", {})
        except (errors.Unauthenticated, *errors.RETRYABLE):
            return  # ended already, or the hub goes down: then it ends by itself within hours
        finally:
            hub.close()


def _phase(cluster: Document) -> str:
    return str((cluster.get("status") or {}).get("phase", "Pending"))
