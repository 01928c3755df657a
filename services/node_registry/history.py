"""What changed about a machine, kept short: pure. The record is `libs.common.resources.node_history`, `history_log` writes it.

Kubelet's heartbeats never come so far: no time of theirs is compared. What changes again soon is one entry that counts, and of what changes most,
such as labels, at most half of the entries are kept, so that nobody washes a reboot out of the history by setting labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime

from libs.common.resources.node_history import NodeChange, NodeHistory
from libs.common.resources.nodes import Node
from services.node_registry.rules import HUB_CONDITIONS

MAX_CHANGES = 50
MAX_MINOR = 25
MAX_AT_ONCE = 16
COALESCE_S = 600.0
MAX_VALUE = 128
MAX_WHAT = 160

NODE, REBOOT, OTHERS = "node", "boot", "others"
REGISTERED, REMOVED = "registered", "removed"
_MINOR = ("labels.", "taints.", "addresses.", "capacity.", "allocatable.", "conditions.")
_PLAIN = {
    "kubeletVersion": "kubelet_version", "osImage": "os_image", "kernelVersion": "kernel_version", "containerRuntime": "container_runtime",
    "architecture": "architecture", "operatingSystem": "operating_system", "providerID": "provider_id", "systemUUID": "system_uuid",
    "machineID": "machine_id", REBOOT: "boot_id",
}  # fmt: skip


def render_facts(node: Node) -> dict[str, str]:
    """What is compared, as texts by what they are called in the history."""
    status = node.status
    facts = {what: str(getattr(status, field)) for what, field in _PLAIN.items()}
    facts["ready"] = {True: "True", False: "False", None: "Unknown"}[status.ready]
    facts["unschedulable"] = str(status.unschedulable)
    facts["roles"] = ",".join(status.roles)
    facts["podCIDRs"] = ",".join(status.pod_cidrs)
    for address in status.addresses:
        key = f"addresses.{address.type}"
        facts[key] = f"{facts[key]},{address.address}" if key in facts else address.address
    facts |= {f"taints.{t.key}:{t.effect}": t.value or "set" for t in status.taints}
    facts |= {f"labels.{key}": value or "set" for key, value in (node.metadata.labels or {}).items()}
    facts |= {f"capacity.{name}": amount for name, amount in status.capacity.items()}
    facts |= {f"allocatable.{name}": amount for name, amount in status.allocatable.items()}
    facts |= {
        f"conditions.{c.type}": c.status
        for c in status.conditions
        if c.type not in HUB_CONDITIONS and c.type != "Ready"
    }
    return {what: text for what, text in facts.items() if text}


def digest(facts: Mapping[str, str]) -> str:
    """Short for all of them."""
    said = "\n".join(f"{what}={facts[what]}" for what in sorted(facts))
    return hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()[:24]


def diff_facts(before: Mapping[str, str], after: Mapping[str, str], now: datetime) -> list[NodeChange]:
    """The changes between the two; of very many the first, and how many more there are."""
    differing = [what for what in {**before, **after} if before.get(what, "") != after.get(what, "")]
    differing.sort(key=lambda what: (is_minor(what), what))
    changes = [_change(what, before.get(what, ""), after.get(what, ""), now) for what in differing[:MAX_AT_ONCE]]
    if len(differing) > MAX_AT_ONCE:
        changes.append(_change(OTHERS, "", f"{len(differing) - MAX_AT_ONCE} more changes", now))
    return changes


def render_registered(before: str, name: str, now: datetime) -> NodeChange:
    """A machine registered: for the first time (`before` empty), or again, perhaps under another name."""
    return _change(NODE, before, f"{name} {REGISTERED}", now)


def render_reboot(before: str, boot_id: str, now: datetime) -> NodeChange:
    return _change(REBOOT, before, boot_id, now)


def render_removed(name: str, now: datetime) -> NodeChange:
    return _change(NODE, name, REMOVED, now)


def add_changes(history: NodeHistory, changes: Iterable[NodeChange]) -> NodeHistory:
    """The history with these at its end. What changed a short while ago already is counted there, not told again."""
    kept, dropped = list(history.changes), history.dropped
    for change in changes:
        last = next((entry for entry in reversed(kept) if entry.what == change.what), None)
        if last is not None and change.what != NODE and (change.time - last.last).total_seconds() <= COALESCE_S:
            kept.remove(last)
            change = NodeChange(
                time=last.time, what=last.what, before=last.before, after=change.after, count=last.count + 1, until=change.time
            )  # fmt: skip
        kept.append(change)
        if len(kept) > MAX_CHANGES:
            minor = [entry for entry in kept if is_minor(entry.what)]
            kept.remove(minor[0] if len(minor) > MAX_MINOR else kept[0])
            dropped += 1
    return history.model_copy(update={"changes": kept, "dropped": dropped})


def is_minor(what: str) -> bool:
    return what.startswith(_MINOR) or what in (OTHERS, "ready")


def _change(what: str, before: str, after: str, now: datetime) -> NodeChange:
    return NodeChange(time=now, what=_cut(what, MAX_WHAT), before=_cut(before, MAX_VALUE), after=_cut(after, MAX_VALUE))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
