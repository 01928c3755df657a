"""What becomes of access requests by themselves: undecided ones lapse, granted ones end or are revoked, old ones go.

Keys are request names. The role itself ends by its binding, to the second and without this; here the request only comes to say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from libs.common import errors
from libs.common.observe import log
from libs.common.reconcile import DONE, After, Outcome
from libs.common.resources.access import RoleTemplateBinding
from libs.common.resources.registry import BY_MODEL
from libs.common.resources.requests import AccessPolicy, AccessRequest, Phase
from libs.common.store.base import Store
from libs.common.store.objects import Objects, encode_last, modify, read
from services.authz import request_rules as rules
from services.authz.break_glass import Alarms

if TYPE_CHECKING:
    from libs.common.store.informer import Change

KEEP_S = 30 * 86400.0
"""How long a closed request is shown; the audit log has it for longer."""
LOOK_AGAIN_S = 3600.0


class RequestReconciler:
    def __init__(
        self, store: Store, policies: Objects[AccessPolicy], requests: Objects[AccessRequest], alarms: Alarms, now: Callable[[], datetime]
    ) -> None:  # fmt: skip
        self._store = store
        self._policies = policies
        self._requests = requests
        self._alarms = alarms
        self._now = now

    async def reconcile(self, name: str) -> Outcome:
        request = self._requests.get(name)
        if request is None:
            return DONE
        if request.spec.break_glass:
            await self._alarms.tell(request)
        await self._follow_policy(request)
        now = self._now()
        phase = await self._phase(request, now)
        if phase != request.status.phase:
            await self._set_phase(request, phase)
            log.get("authz").info("access_request_closed", request=name, phase=phase, user=request.spec.user)
            return DONE  # its own change calls again
        moment = _next_moment(request)
        if moment is None:
            return DONE
        if phase not in ("Pending", "Granted") and now >= moment:
            await self._delete(request)
            return DONE
        return After(min(LOOK_AGAIN_S, max(0.5, (moment - now).total_seconds())))

    async def _phase(self, request: AccessRequest, now: datetime) -> Phase:
        """What the request is at this moment. The binding is asked for in the store: a copy may be behind."""
        status = request.status
        if status.phase == "Pending" and rules.is_lapsed(request, now):
            return "Lapsed"
        if status.phase != "Granted":
            return status.phase
        if status.until is None or now >= status.until:
            return "Ended"
        try:
            binding = await read(self._store, RoleTemplateBinding, status.binding)
        except errors.NotFound:
            return "Revoked"
        return "Revoked" if binding.deleting else "Granted"

    async def _follow_policy(self, request: AccessRequest) -> None:
        """Who decides is who the policy names now, so that they see what waits for them; of a policy that is gone, those of the time."""
        policy = self._policies.get(request.spec.policy or "")
        if policy is None or policy.uid != request.spec.policy_uid or not is_open(request):
            return
        approvers = list(policy.spec.approvers)

        def change(stored: AccessRequest) -> bool:
            if stored.uid != request.uid or stored.status.approvers == approvers:
                return False
            stored.status.approvers = approvers
            return True

        if request.status.approvers != approvers:
            await self._modify(request.name, change)

    async def _set_phase(self, request: AccessRequest, phase: Phase) -> None:
        before = request.status.phase

        def change(stored: AccessRequest) -> bool:
            if stored.uid != request.uid or stored.status.phase != before:
                return False  # decided meanwhile: its own change calls again
            stored.status.phase = phase
            stored.status.missing = 0
            return True

        await self._modify(request.name, change)

    async def _modify(self, name: str, change: Callable[[AccessRequest], bool]) -> None:
        try:
            await modify(self._store, AccessRequest, name, change, now=self._now)
        except errors.NotFound:
            return

    async def _delete(self, request: AccessRequest) -> None:
        try:
            stored = await read(self._store, AccessRequest, request.name)
        except errors.NotFound:
            return
        if stored.uid == request.uid:
            revision = int(stored.metadata.resource_version or 0)
            await self._store.delete(BY_MODEL[AccessRequest].key(stored.name), encode_last(stored), revision)


def keys_of_request(change: Change) -> Iterable[str]:
    return () if change.after is None else (change.key.partition(".")[2],)


def requests_of_binding(requests: Objects[AccessRequest]) -> Callable[[Change], Iterable[str]]:
    """The request that a binding came from, when it goes or its end moves."""

    def keys(change: Change) -> Iterable[str]:
        name = change.key.partition(".")[2]
        if change.before is None or not name.startswith("access-"):
            return ()
        return [request.name for request in requests.all() if request.status.binding == name]

    return keys


def requests_of_policy(requests: Objects[AccessRequest]) -> Callable[[Change], Iterable[str]]:
    """What still waits for those whom the policy names."""

    def keys(change: Change) -> Iterable[str]:
        name = change.key.partition(".")[2]
        return [request.name for request in requests.all() if request.spec.policy == name and is_open(request)]

    return keys


def is_open(request: AccessRequest) -> bool:
    """Whether somebody has to decide on it."""
    return request.status.phase == "Pending" or request.status.unreviewed


def _next_moment(request: AccessRequest) -> datetime | None:
    """When something happens to it by itself; an emergency is kept until somebody reviewed it."""
    created, status = request.metadata.creation_timestamp, request.status
    if status.phase == "Granted":
        return status.until
    if created is None or status.unreviewed:
        return None
    if status.phase == "Pending":
        return created + timedelta(seconds=rules.LAPSE_S)
    return max(created, status.until or created) + timedelta(seconds=KEEP_S)
