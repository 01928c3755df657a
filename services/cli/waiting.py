"""Waiting for a cluster to become active or to be gone, with one line for each change. Used by `commands/clusters`.

Ctrl-C ends only the waiting: what was asked for goes on in the hub.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from libs.common import errors
from services.cli import output as out
from services.cli import resources
from services.cli.durations import format_elapsed
from services.cli.hub import Document, Hub

_ORDER = ("Registered", "Connected", "Applied", "Ready")


def wait_active(hub: Hub, name: str, timeout_s: float) -> float:
    """Seconds until the cluster was active. Raises Timeout with what it still waits for."""
    began = time.monotonic()
    said = ""
    with _interruptible(name):
        while True:
            cluster = hub.get(resources.path("clusters", name))
            elapsed = time.monotonic() - began
            if (cluster.get("status") or {}).get("phase") == "Active":
                return elapsed
            said = _say_change(said, explain_phase(cluster), elapsed)
            if elapsed > timeout_s:
                raise errors.Timeout(
                    f'cluster "{name}" is not active after {format_elapsed(elapsed)}: {said}; it goes on, see "herdsman cluster show {name}"'
                )
            time.sleep(random.uniform(0.4, 0.8))


def wait_gone(hub: Hub, name: str, uid: str, timeout_s: float) -> tuple[float, str]:
    """Seconds until that very cluster was gone, and the last words about what was removed. Raises Timeout.

    Watches rather than polls: what the agent removed stands in the very last version of the object.
    """
    began = time.monotonic()
    said = ""
    with _interruptible(name):
        while True:
            left_s = timeout_s - (time.monotonic() - began)
            if left_s <= 0:
                raise errors.Timeout(
                    f'cluster "{name}" is still being deleted after {format_elapsed(timeout_s)}: {said}; it goes on, '
                    f'or forget it with "herdsman cluster delete {name} --force"'
                )
            fields = {"fieldSelector": f"metadata.name={name}"}
            for event in hub.watch(resources.path("clusters"), fields, timeout_s=max(1, min(30, round(left_s)))):
                cluster = event.get("object") or {}
                if (
                    event.get("type") not in ("ADDED", "MODIFIED", "DELETED")
                    or (cluster.get("metadata") or {}).get("uid") != uid
                ):
                    continue
                message = str(resources.condition(cluster, "Detached").get("message", ""))
                if event["type"] == "DELETED":
                    return time.monotonic() - began, message
                said = _say_change(said, message or "waiting for the agent", time.monotonic() - began)
            # The watch ended: by its time, by a break, or because the cluster was gone before it began.
            try:
                cluster = hub.get(resources.path("clusters", name))
            except errors.NotFound:
                return time.monotonic() - began, said
            if (cluster.get("metadata") or {}).get("uid") != uid:
                return time.monotonic() - began, said
            time.sleep(random.uniform(0.2, 0.5))


def explain_phase(cluster: Document) -> str:
    """The first condition that is not met, in the hub's own words."""
    for type_ in _ORDER:
        condition = resources.condition(cluster, type_)
        if condition.get("status") != "True":
            return str(condition.get("message") or f"waiting for {type_}")
    return str((cluster.get("status") or {}).get("phase", "Pending"))


def _say_change(before: str, now: str, elapsed_s: float) -> str:
    if now != before:
        out.note(f"[{format_elapsed(elapsed_s):>7}] {now}")
    return now


@contextmanager
def _interruptible(name: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        out.note(f'no longer waiting; it goes on, see "herdsman cluster show {name}"')
        raise click.Abort from error
