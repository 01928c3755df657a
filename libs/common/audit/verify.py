"""Whether an audit log is whole: batches in, findings out. Pure; the command line feeds it from the hub or from an exported file.

What can be proved: no line of a chain was changed, left out, put in, doubled or moved, and no chain was cut short, unless the one who did
it had the front door's private key. What can't: whether a chain that nobody took up again lost its end, so that is told.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from libs.common.audit.chain import RECORD, Position, Seal, chain_hash

Severity = Literal["broken", "gap", "note"]
SILENT_S = 300.0
"""A chain says something every minute while its process lives."""


@dataclass(frozen=True, slots=True)
class Finding:
    """broken: somebody tampered. gap: lines are missing, and the log itself says so. note: nothing is wrong."""

    severity: Severity
    chain: str
    text: str


@dataclass(slots=True)
class ChainState:
    expected: Position
    first_batch: int
    last_at: str = ""
    ended: str = ""
    """How: stopped or killed; empty = no end seen."""
    succeeded: bool = False
    lines: int = 0


@dataclass
class LogVerifier:
    """`partial`: the log may begin in the middle of chains, because older parts are not kept or were not asked for."""

    key: Ed25519PublicKey
    partial: bool = False
    findings: list[Finding] = field(default_factory=list)
    chains: dict[str, ChainState] = field(default_factory=dict)
    batches: int = 0
    events: int = 0

    def feed(self, seal: Seal, lines: Sequence[bytes], where: str) -> None:
        """One batch, in the order of the log. `where` names its place for people."""
        self.batches += 1
        name = f"batch {seal.batch} ({where})"
        if not seal.is_genuine(self.key):
            self._tell("broken", seal.chain, f"{name} is not signed by the hub's key")
            return
        if len(lines) != seal.count or chain_hash(seal.before, lines) != seal.after:
            self._tell("broken", seal.chain, f"{name} was changed: its lines are not those that were signed")
            self._advance(seal)
            return
        state = self.chains.get(seal.chain)
        if state is None:
            state = self.chains[seal.chain] = ChainState(Position(seal.batch, seal.first, seal.before), seal.batch)
            if seal.batch:
                severity: Severity = "note" if self.partial else "broken"
                self._tell(severity, seal.chain, f"begins at batch {seal.batch}: what was before is not here")
        if not self._follows(state, seal, name):
            return
        if state.ended:
            self._tell("broken", seal.chain, f"{name} comes after the end of its chain")
        self._advance(seal)
        for line in lines:
            self._look(seal.chain, state, line)

    def finish(self, now: datetime | None = None) -> list[Finding]:
        """Call once at the end. `now`: the log goes up to this moment; None = it may have been cut on purpose."""
        for chain, state in self.chains.items():
            if state.ended or state.succeeded:
                continue
            if now is None:
                self._tell("note", chain, f"has no end in this log; its last batch is of {state.last_at}")
                continue
            silent_s = (now - datetime.fromisoformat(state.last_at.replace("Z", "+00:00"))).total_seconds()
            if silent_s > SILENT_S:
                self._tell(
                    "gap", chain,
                    f"says nothing since {state.last_at} and has no end: its front door died and did not come back, or its last batches are missing",
                )  # fmt: skip
        return self.findings

    def malformed(self, where: str, why: str) -> None:
        """Something at this place is no batch."""
        self._tell("broken", "", f"{where}: {why}")

    @property
    def worst(self) -> Severity:
        severities = {finding.severity for finding in self.findings}
        return "broken" if "broken" in severities else "gap" if "gap" in severities else "note"

    def _follows(self, state: ChainState, seal: Seal, name: str) -> bool:
        expected = state.expected
        if seal.batch < expected.batch:
            self._tell("broken", seal.chain, f"{name} comes twice or out of order: batch {expected.batch} was next")
            return False
        if seal.batch > expected.batch:
            missing = f"batch {expected.batch}" + (f" to {seal.batch - 1}" if seal.batch - 1 > expected.batch else "")
            self._tell("broken", seal.chain, f"{missing} missing before {name}: {seal.first - expected.line} lines")
        elif (seal.first, seal.before) != (expected.line, expected.hash):
            self._tell("broken", seal.chain, f"{name} does not follow from the batch before it")
        return True

    def _advance(self, seal: Seal) -> None:
        state = self.chains.get(seal.chain)
        if state is None:
            state = self.chains[seal.chain] = ChainState(seal.next, seal.batch)
        if seal.batch >= state.expected.batch:
            state.expected = seal.next
            state.last_at = seal.at
            state.lines += seal.count

    def _look(self, chain: str, state: ChainState, line: bytes) -> None:
        """Records of the chain itself."""
        if not line.startswith(b'{"kind":"ChainRecord"'):
            self.events += 1
            return
        try:
            record: dict[str, Any] = json.loads(line)
        except ValueError:
            self._tell("broken", chain, "a record of the chain can't be read")
            return
        if record.get("kind") != RECORD:
            return
        kind = record.get("type")
        if kind == "start":
            for before in record.get("follows", ()):
                self._check_predecessor(chain, before)
        elif kind == "end":
            state.ended = str(record.get("how", "stopped"))
            if state.ended != "stopped":
                self._tell(
                    "gap", chain,
                    f"ended at {record.get('at')} without a stop: calls of the last moments before may be missing",
                )  # fmt: skip
        elif kind == "gap":
            self._tell(
                "gap", chain,
                f"{record.get('lost', 0)} events lost and {record.get('refused', 0)} calls refused unseen from {record.get('since')} "
                f"to {record.get('at')}: {record.get('why')}",
            )  # fmt: skip

    def _check_predecessor(self, chain: str, before: dict[str, Any]) -> None:
        name = str(before.get("chain"))
        state = self.chains.get(name)
        if state is None:
            severity: Severity = "note" if self.partial else "broken"
            self._tell(severity, chain, f"follows chain {name}, which is not here")
            return
        state.succeeded = True
        said = (before.get("batch"), before.get("line"), before.get("hash"))
        if said != (state.expected.batch, state.expected.line, state.expected.hash.hex()):
            self._tell(
                "broken", name,
                f"was cut or continued: chain {chain} says that it ended before batch {said[0]}, here it ends before batch {state.expected.batch}",
            )  # fmt: skip

    def _tell(self, severity: Severity, chain: str, text: str) -> None:
        self.findings.append(Finding(severity, chain, text))
