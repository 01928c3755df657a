"""Gives nodes their machine and keeps the machine's history: the thin shell around `machines` and `history`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from libs.common.resources.node_history import NodeHistory
from libs.common.resources.nodes import Node
from services.node_registry import history, machines, rules
from services.node_registry.history_log import HistoryLog
from services.node_registry.machines import MAX_FORMER_NAMES, Facts, facts_of
from services.node_registry.view import View


class Registrar:
    def __init__(self, view: View, log: HistoryLog, now: Callable[[], datetime]) -> None:
        self._view = view
        self._log = log
        self._now = now

    async def register(self, fresh: Node, replaced: Node | None) -> None:
        """Fill in which machine a node is that was not there before, and write it into the history: before the node is written, and once, also when
        that is tried again.
        """
        now, facts, status = self._now(), facts_of(fresh), fresh.status
        before = machines.find_predecessor(
            facts, None if replaced is None else facts_of(replaced), self._view.sharing(facts.identifiers, facts.cluster_uid),
            self._view.gone_sharing(facts.cluster_uid, facts.identifiers), now,
        )  # fmt: skip
        changes = [history.render_registered(before.node_name if before is not None else "", fresh.spec.node_name, now)]
        if before is None:
            status.machine = machines.make_machine(facts, lambda machine: self._view.is_taken(machine, fresh.name))
            status.first_seen = now
        else:
            _carry_on(fresh, before, now)
            if rules.is_rebooted(before.boot_id, status.boot_id):
                changes.append(history.render_reboot(before.boot_id, status.boot_id, now))
        digest = history.digest(history.render_facts(fresh))

        def change(known: NodeHistory) -> NodeHistory | None:
            if known.node_uid == fresh.spec.node_uid and known.digest not in ("", history.REMOVED):
                return None
            grown = history.add_changes(known, changes)
            return grown.model_copy(update={"node_uid": fresh.spec.node_uid, "digest": digest})

        await self._log.change(status.machine, change)

    async def identify(self, known: Node, after: Node) -> dict[str, object]:
        """A node that said nothing by which machines are known says it now: fields of its status that follow from that; {} = no news.

        The id that it had until now was made from its registration. Its history ends, as that of a machine that went.
        """
        if facts_of(known).ids or not facts_of(after).ids:
            return {}
        fresh = after.model_copy(deep=True)
        await self.register(fresh, None)
        status = fresh.status
        if known.status.machine and known.status.machine != status.machine:
            await self._log.change(known.status.machine, lambda history: history, ends=True)
        first = min(moment for moment in (known.status.first_seen, status.first_seen) if moment is not None)
        return {
            "machine": status.machine, "first_seen": first, "reboots": status.reboots, "booted_at": status.booted_at,
            "former_names": status.former_names,
        }  # fmt: skip

    async def note(self, before: Node, after: Node) -> None:
        """What changed about a node, before it is stored; once, also when storing it is tried again."""
        if not before.status.machine:
            return
        now, facts = self._now(), history.render_facts(after)
        changes = history.diff_facts(history.render_facts(before), facts, now)
        digest = history.digest(facts)

        def change(known: NodeHistory) -> NodeHistory | None:
            other = known.node_uid not in (
                "",
                after.spec.node_uid,
            )  # the machine has registered anew since: this node is what is left of it
            if other or known.digest == digest or not changes:
                return None
            grown = history.add_changes(known, changes)
            return grown.model_copy(update={"node_uid": after.spec.node_uid, "digest": digest})

        await self._log.change(before.status.machine, change)

    async def note_removed(self, node: Node) -> None:
        """The node is no longer there. The history stays for a while: the machine may come back."""
        now, machine = self._now(), node.status.machine
        if not machine:
            return

        def change(known: NodeHistory) -> NodeHistory | None:
            if known.node_uid != node.spec.node_uid or known.digest == history.REMOVED:
                return None
            grown = history.add_changes(known, [history.render_removed(node.spec.node_name, now)])
            return grown.model_copy(update={"digest": history.REMOVED})

        await self._log.change(machine, change, ends=True)


def _carry_on(fresh: Node, before: Facts, now: datetime) -> None:
    status = fresh.status
    status.machine, status.first_seen = before.machine, before.first_seen
    status.reboots, status.booted_at = before.reboots, before.booted_at
    if rules.is_rebooted(before.boot_id, status.boot_id):
        status.reboots, status.booted_at = before.reboots + 1, now
    names = [before.node_name, *before.former_names]
    status.former_names = [name for name in dict.fromkeys(names) if name != fresh.spec.node_name][:MAX_FORMER_NAMES]
