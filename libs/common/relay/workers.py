"""The hub's processes as one agent sees them: what it has with each, when each was last heard, and which is about to stop.

A process of the hub that is silent on all its connections is gone, or the way to it is; the network need not say so. Then all
connections with it are cut together, the busy ones too: whoever reads them would wait for ever. Owned by `dial`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from libs.common.relay import sockets, tunnel
from libs.common.relay.session import Session

log = structlog.get_logger(component="relay")


@dataclass(slots=True)
class Worker:
    """`sessions` are all connections with it; spliced streams are among them until they end."""

    name: str
    heard_at: float
    draining: bool = False
    sessions: set[Session] = field(default_factory=set)


class Workers:
    """Invariant: a worker is known exactly while there is a connection with it."""

    def __init__(self) -> None:
        self._by_name: dict[str, Worker] = {}
        self._of: dict[Session, Worker] = {}

    def add(self, session: Session, name: str, now: float) -> None:
        worker = self._by_name.get(name)
        if worker is None:
            worker = self._by_name[name] = Worker(name, now)
        worker.heard_at = now
        worker.sessions.add(session)
        self._of[session] = worker

    def remove(self, session: Session) -> None:
        worker = self._of.pop(session, None)
        if worker is not None:
            worker.sessions.discard(session)
            if not worker.sessions:
                del self._by_name[worker.name]

    def heard(self, session: Session, now: float) -> None:
        worker = self._of.get(session)
        if worker is not None:
            worker.heard_at = now

    def drain(self, session: Session) -> None:
        """The process behind this connection is about to stop."""
        worker = self._of.get(session)
        if worker is not None and not worker.draining:
            worker.draining = True
            log.info("hub_process_drains", worker=worker.name, connections=len(worker.sessions))

    def is_draining(self, session: Session) -> bool:
        worker = self._of.get(session)
        return worker is not None and worker.draining

    def cut_silent(self, now: float, resting: Mapping[Session, float]) -> int:
        """Cut all connections of each process that was silent for too long. Returns how many were cut.

        `resting`: since when connections rest. Only there pings are due: of a process that has nothing but streams here, as one that
        drains, silence says nothing, and the kernel's keep-alive looks after each stream.
        """
        cut = 0
        for worker in list(self._by_name.values()):
            if now - worker.heard_at <= tunnel.WORKER_SILENCE_S:
                continue
            if not any(now - resting.get(s, now) > tunnel.WORKER_SILENCE_S for s in worker.sessions):
                continue
            # Requests and pings are heard here; the bytes of a stream only the kernel knows about.
            ages = [age for s in worker.sessions if (age := sockets.silent_for_s(s.transport)) is not None]
            if ages and min(ages) <= tunnel.WORKER_SILENCE_S:
                worker.heard_at = now - min(ages)
                continue
            log.warning("hub_process_silent", worker=worker.name, connections=len(worker.sessions))
            for session in list(worker.sessions):
                cut += 1
                session.transport.abort()
        return cut
