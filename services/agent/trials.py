"""Tries policies on what is in the cluster: what would break. The API server judges, by requests that change nothing; the hub is told.

An AdmissionPolicy stands applied, with warnings or refusals, when it is tried: each object that it is about is sent back as it is, as a dry run,
under a name that may do nothing else. A Pod Security level is tried as `kubectl label --dry-run=server` does, and names pods. At most one
trial runs, so many objects a second and so many in all: a cluster has better things to do.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from libs.common import errors
from libs.common.bus.base import Bus
from libs.common.contracts.messages import Empty, TrialReport
from libs.common.contracts.methods import REPORT_TRIAL
from libs.common.kube.client import METADATA_LIST, KubeClient
from libs.common.kube.discovery import Discovery
from libs.common.kube.objects import labels_of
from libs.common.policies.levels import DOMAIN, is_governed
from libs.common.policies.names import CANARY, CANARY_NAMESPACE, TRIAL_USER, guard_name, trial_group
from services.agent.apply import NAMESPACES
from services.agent.claims import PROJECT
from services.agent.desired import DesiredKeeper
from services.agent.trial_rules import (
    Findings,
    Order,
    Subject,
    add_pods,
    copy_of,
    find_orders,
    find_subjects,
    report_of,
    violations_in,
)

MAX_OBJECTS = 2000
PAUSE_S = 0.05
"""Between two objects."""
AT_WORK_S = 60.0
"""So long a policy may take from being applied until the API server judges by it."""
REPEAT_S = 6 * 3600.0
AGAIN_S = 300.0
"""After so long what could not be tried is tried once more: nobody enforces a policy that was not tried."""
REPORT_AGAIN_S = 10.0
TRIAL_DONE = "trial_done"
TRIAL_FAILED = "trial_failed"
log = structlog.get_logger(__name__)


class ClientFactory(Protocol):
    """A client that works under another name."""

    def __call__(self, user: str, groups: tuple[str, ...]) -> KubeClient: ...


class Trials:
    def __init__(
        self, client: KubeClient, discovery: Discovery, bus: Bus, cluster_uid: str, desired: DesiredKeeper, acting_as: ClientFactory,
        *, pause_s: float = PAUSE_S, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._client = client
        self._discovery = discovery
        self._bus = bus
        self._uid = cluster_uid
        self._desired = desired
        self._acting_as = acting_as
        self._pause_s = pause_s
        self._sleep = sleep
        self._monotonic = monotonic
        self._done: dict[tuple[str, str], tuple[str, float]] = {}
        """(Kind, policy) → the trial that was made last, and when."""
        self._unsaid: dict[tuple[str, str], TrialReport] = {}

    async def run(self) -> None:
        """For ever."""
        while True:
            self._desired.trials_changed.clear()
            for order in self._due():
                await self._try(order)
            await self._tell()
            waits = REPORT_AGAIN_S if self._unsaid else min(AGAIN_S, REPEAT_S / 60)
            try:
                async with asyncio.timeout(waits):
                    await self._desired.trials_changed.wait()
            except TimeoutError:
                continue

    def _due(self) -> list[Order]:
        """Trials of what is applied now, that were not made yet or long ago."""
        orders = find_orders(self._desired.parts)
        present = {(order.kind, order.policy) for order in orders}
        self._done = {key: value for key, value in self._done.items() if key in present}
        due = []
        for order in orders:
            id_, at = self._done.get((order.kind, order.policy), ("", 0.0))
            is_new = id_ != order.id or self._monotonic() - at > REPEAT_S
            if is_new and self._desired.applied.get(order.part) == order.hash:
                due.append(order)
        return due

    async def _try(self, order: Order) -> None:
        self._done[(order.kind, order.policy)] = (order.id, self._monotonic() + random.uniform(0, REPEAT_S / 10))
        findings, message = Findings(), ""
        try:
            if order.kind == "AdmissionPolicy":
                await self._try_admission(order, findings)
            else:
                await self._try_levels(order, findings)
        except errors.HerdsmanError as exc:
            message = exc.message
            self._done[(order.kind, order.policy)] = (order.id, self._monotonic() - REPEAT_S + AGAIN_S)
            log.warning(TRIAL_FAILED, policy=order.policy, kind=order.kind, error=exc.message)
        log.info(
            TRIAL_DONE, policy=order.policy, kind=order.kind, looked=findings.looked, violations=findings.violations
        )
        self._unsaid[(order.kind, order.policy)] = report_of(order, findings, message)

    async def _tell(self) -> None:
        for key, report in list(self._unsaid.items()):
            try:
                await self._bus.request(REPORT_TRIAL.agent_subject(self._uid), report, Empty, timeout_s=10)
            except (errors.Unavailable, errors.Timeout, errors.AlreadyExists):
                continue  # said again later
            except errors.HerdsmanError as exc:
                # The policy is gone, or is another by now: then another trial is due.
                log.info(TRIAL_FAILED, policy=report.policy, error=exc.message)
            self._unsaid.pop(key, None)

    # ── admission policies ──

    async def _try_admission(self, order: Order, findings: Findings) -> None:
        known, _silent = await self._discovery.everything()
        subjects = find_subjects(order.spec.get("rules") or (), known)
        async with self._acting_as(TRIAL_USER, (trial_group(order.policy),)) as client:
            await self._wait_until_at_work(order, client)
            for subject in subjects:
                await self._try_subject(order, client, subject, findings)

    async def _wait_until_at_work(self, order: Order, client: KubeClient) -> None:
        """Until the guard refuses what only the guard of this version refuses. Raises Timeout."""
        canary = {
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "herdsman-canary", "labels": {CANARY: str(order.spec.get("canary") or "")}},
        }  # fmt: skip
        path, give_up, said = f"/api/v1/namespaces/{CANARY_NAMESPACE}/configmaps", self._monotonic() + AT_WORK_S, ""
        while True:
            _warnings, refusal = await client.rehearse("POST", path, canary)
            if refusal is not None and f"'{guard_name(order.policy)}'" in refusal.message:
                return
            said = refusal.message if refusal is not None else "the API server does not judge by the policy yet"
            if self._monotonic() >= give_up:
                raise errors.Timeout(f"the policy could not be tried: {said}")
            await self._sleep(0.5)

    async def _try_subject(self, order: Order, client: KubeClient, subject: Subject, findings: Findings) -> None:
        exempt = set(order.spec.get("exempt") or ())
        accept = METADATA_LIST if subject.method == "PATCH" else "application/json"
        async for page in client.pages(subject.resource.collection_path(), accept=accept):
            for item in page.get("items") or ():
                metadata = item.get("metadata") or {}
                namespace = str(metadata.get("namespace") or "")
                if namespace in exempt or metadata.get("deletionTimestamp"):
                    continue
                if findings.looked >= MAX_OBJECTS:
                    findings.complete = False
                    return
                findings.looked += 1
                name = str(metadata.get("name") or "")
                path, body = subject.resource.object_path(name, namespace), {}
                if subject.method == "POST":
                    path, body = subject.resource.collection_path(namespace), copy_of(item, subject.resource)
                warnings, refusal = await client.rehearse(subject.method, path, body)
                told = violations_in(order.policy, warnings, refusal.message if refusal is not None else "")
                if told:
                    findings.add(subject.resource.plural, namespace, name, "; ".join(dict.fromkeys(told)))
                elif refusal is not None and not isinstance(refusal, errors.AlreadyExists | errors.NotFound):
                    findings.untried += 1
                await self._sleep(self._pause_s)

    # ── Pod Security ──

    async def _try_levels(self, order: Order, findings: Findings) -> None:
        trial = order.spec.get("trial") or {}
        labels = {f"{DOMAIN}/enforce": trial.get("level"), f"{DOMAIN}/enforce-version": trial.get("version")}
        async for page in self._client.pages(NAMESPACES, accept=METADATA_LIST):
            for item in page.get("items") or ():
                name = str(item["metadata"]["name"])
                if not is_governed(order.spec, name, labels_of(item).get(PROJECT, "")) or item["metadata"].get(
                    "deletionTimestamp"
                ):
                    continue
                if findings.looked >= MAX_OBJECTS:
                    findings.complete = False
                    return
                findings.looked += 1
                warnings, refusal = await self._client.rehearse(
                    "PATCH", f"{NAMESPACES}/{name}", {"metadata": {"labels": labels}}
                )
                add_pods(findings, name, warnings)
                if refusal is not None and not isinstance(refusal, errors.NotFound):
                    findings.untried += 1
                await self._sleep(self._pause_s)
