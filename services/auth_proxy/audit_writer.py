"""From raw events to batches on disk: rendering, hashing, signing and the spool files. All of it blocks, and runs in one thread of its own.

`audit.AuditLog` hands over what came and asks for what is to be published. One thread, so nothing here needs a lock. It shares the
interpreter with the event loop, which gets it back within `SWITCH_S`.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.common.audit.chain import Position, seal_batch
from libs.common.audit.event import Recordable, format_micro, render_record
from libs.common.version import VERSION
from services.auth_proxy.audit_spool import Spool, SpoolInUse, left_behind

log = structlog.get_logger(component="audit")
BATCH_EVENTS = 500
BATCH_BYTES = 512 * 1024
SWITCH_S = 0.0005
"""How long this thread may keep the event loop waiting for the interpreter; Python's own 5 ms would be seen in every call's time."""


class Writer:
    """`chain` is this process's own. `inherited` are chains that earlier processes left: ended here, published first, then removed."""

    def __init__(self, folder: Path, key: Ed25519PrivateKey, file: Path | None, now: Callable[[], float] = time.time) -> None:  # fmt: skip
        self._folder = folder
        self._key = key
        self._file = file
        self._now = now
        self._file_failing = False
        self._waiting: list[tuple[bytes, Position, list[bytes], bool]] = []
        self.chain = str(uuid.uuid4())
        self.inherited: list[Spool] = []
        self.own: Spool | None = None
        self._position = Position()

    def start(self) -> None:
        """Take up what earlier processes left, and begin the own chain. Raises OSError."""
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_S))
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        follows = []
        for path in left_behind(self._folder):
            try:
                spool = Spool.open(path)
            except (SpoolInUse, FileNotFoundError):
                # Another process of the front door lives with it, or has just taken it up.
                continue
            except ValueError as exc:
                # Kept for a person to look at: nothing that was once written down is thrown away unread.
                path.replace(path.with_suffix(".unreadable"))
                log.error("audit_spool_unreadable", file=path.name, error=str(exc))
                continue
            if spool.cut_bytes:
                log.warning("audit_spool_cut", file=path.name, bytes=spool.cut_bytes)
            if not spool.ended:
                self._end_for(spool)
            self.inherited.append(spool)
            place = spool.position
            follows.append({"chain": spool.chain, "batch": place.batch, "line": place.line, "hash": place.hash.hex()})
        self.own = Spool.create(self._folder, self.chain)
        self.add([render_record("start", self._now(), version=VERSION, follows=follows)])

    def _end_for(self, spool: Spool) -> None:
        """Its process died: say so at the end of its chain, so that it can't be taken for one that was cut."""
        moment = self._now()
        line = render_record("end", moment, how="killed", pending=len(spool.pending), cut=spool.cut_bytes)
        message, position = seal_batch(self._key, spool.chain, spool.position, [line], format_micro(moment))
        spool.append(message, position, ends=True)

    def write(self, events: Sequence[Recordable], records: Sequence[bytes], *, ends: bool = False) -> int:
        """Make batches of these and keep them; the number of batches that are on disk now. Raises OSError: what is made stays, and goes
        out with the next call."""
        lines = list(records)
        size = sum(map(len, lines))
        for event in events:
            line = self._render(event)
            if lines and (len(lines) >= BATCH_EVENTS or size + len(line) > BATCH_BYTES):
                self._seal(lines)
                lines, size = [], 0
            lines.append(line)
            size += len(line)
        if ends:
            lines.append(render_record("end", self._now(), how="stopped"))
        if lines:
            self._seal(lines, ends=ends)
        return self.flush()

    def add(self, lines: list[bytes]) -> int:
        """One batch of records. Raises OSError as `write`."""
        self._seal(lines)
        return self.flush()

    def flush(self) -> int:
        """Put on disk what waits for it. Raises OSError."""
        done = 0
        assert self.own is not None
        while self._waiting:
            message, position, lines, ends = self._waiting[0]
            self.own.append(message, position, ends=ends)
            del self._waiting[0]
            self._copy(lines)
            done += 1
        return done

    @property
    def waiting(self) -> int:
        """Batches that are made and could not be put on disk."""
        return len(self._waiting)

    def _render(self, event: Recordable) -> bytes:
        try:
            return event.to_event().render(self.chain)
        except Exception as exc:
            # One event that can't be shown must not take others with it, nor vanish.
            log.exception("audit_event_unreadable")
            return render_record("unreadable", self._now(), error=type(exc).__name__)

    def _seal(self, lines: list[bytes], *, ends: bool = False) -> None:
        message, position = seal_batch(self._key, self.chain, self._position, lines, format_micro(self._now()))
        self._position = position
        self._waiting.append((message, position, lines, ends))

    def _copy(self, lines: list[bytes]) -> None:
        """The same lines into the file of the settings, for whoever collects logs. It is a copy: when it fails, that is told once."""
        if self._file is None:
            return
        try:
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                data = (b"\n" if self._file_failing else b"") + b"\n".join(lines) + b"\n"
                while data:
                    data = data[os.write(descriptor, data) :]
            finally:
                os.close(descriptor)
        except OSError as exc:
            if not self._file_failing:
                log.error("audit_file_failed", file=str(self._file), error=exc.strerror)
            self._file_failing = True
        else:
            self._file_failing = False

    # what is to be published

    @property
    def pending_bytes(self) -> int:
        return sum(spool.pending_bytes for spool in self._spools())

    def next_spool(self) -> Spool | None:
        """The file whose oldest batch goes out next: chains of earlier processes first."""
        return next((spool for spool in self._spools() if spool.pending), None)

    def tidy(self) -> None:
        """Forget inherited chains once the start that names them is in the stream."""
        if self.inherited and self.own is not None and self.own.after and not any(s.pending for s in self.inherited):
            for spool in self.inherited:
                spool.remove()
            self.inherited = []

    def close(self) -> None:
        for spool in self._spools():
            spool.close()

    def _spools(self) -> list[Any]:
        return [*self.inherited, self.own] if self.own is not None else list(self.inherited)
