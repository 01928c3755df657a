"""The file that holds batches until JetStream has them: append-only frames, one file for each chain, removed when another start took it up.

A frame is `length (4) | CRC-32 (4) | kind (1) | payload`. Kinds: S = where the chain stands (JSON), always the first frame; B = a batch's
message, E = of one that ends its chain; A = the batch up to which all is stored, with the stream's sequence. What follows the last whole frame was being written when the
process died: it is cut off. Blocking; `audit_writer` calls it from its own thread.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from libs.common.audit.chain import BadBatch, Position, read_seal

SUFFIX = ".spool"
_FRAME = struct.Struct(">IIc")
_ACK = struct.Struct(">QQ")
_MAX_PAYLOAD = 16 * 1024 * 1024
_TIDY_BYTES = 4 * 1024 * 1024


class SpoolInUse(OSError):
    """Another process holds this file: it lives."""


@dataclass(slots=True)
class Pending:
    """A batch that is not stored yet: where its message lies in the file."""

    batch: int
    offset: int
    size: int


@dataclass
class Spool:
    """One chain's file, locked. `position` is after the last batch in it, `after` the sequence of the last one that is stored.

    Invariant: the file's first frame with all whole frames behind it says exactly what this object says.
    """

    path: Path
    chain: str
    position: Position = field(default_factory=Position)
    after: int = 0
    ended: bool = False
    """The last batch closes the chain."""
    pending: deque[Pending] = field(default_factory=deque)
    pending_bytes: int = 0
    cut_bytes: int = 0
    """How much half-written tail was found when it was opened."""
    _file: int = -1
    _end: int = 0

    @classmethod
    def create(cls, folder: Path, chain: str) -> Spool:
        """Raises OSError."""
        spool = cls(folder / f"{chain}{SUFFIX}", chain)
        spool._replace()
        return spool

    @classmethod
    def open(cls, path: Path) -> Spool:
        """Take up a file that another process left. Raises SpoolInUse, OSError; ValueError when not even its first frame is whole."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _lock(descriptor)
            if not _is_same(descriptor, path):
                raise SpoolInUse(f"{path.name} was replaced meanwhile")
            spool = cls(path, path.name.removesuffix(SUFFIX), _file=descriptor)
            spool._read()
        except BaseException:
            os.close(descriptor)
            raise
        return spool

    def append(self, message: bytes, position: Position, *, ends: bool = False) -> None:
        """Keep a batch. Raises OSError; then the file is as it was before."""
        frame = _frame(b"E" if ends else b"B", message)
        self._write(frame)
        self.pending.append(Pending(position.batch - 1, self._end - len(message), len(message)))
        self.pending_bytes += len(frame)
        self.position = position
        self.ended = ends

    def read_first(self) -> tuple[int, bytes]:
        """(number, message) of the oldest batch that is not stored yet."""
        first = self.pending[0]
        return first.batch, os.pread(self._file, first.size, first.offset)

    def stored(self, sequence: int) -> None:
        """The oldest batch is in the stream now. Raises OSError when that can't be noted; then it counts as not stored.

        It is on disk before the next batch is sent, so that after a crash at most one batch is in doubt.
        """
        first = self.pending[0]
        self._write(_frame(b"A", _ACK.pack(first.batch, sequence)))
        self.pending.popleft()
        self.pending_bytes -= first.size + _FRAME.size
        self.after = sequence
        if self._end > _TIDY_BYTES and self.pending_bytes < self._end // 2:
            self._replace()

    def rewind(self, after: int) -> None:
        """The stream turned out to stand elsewhere than noted."""
        self.after = after

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def remove(self) -> None:
        """What it says is in the stream: forget it."""
        self.path.unlink(missing_ok=True)
        self.close()

    # inside

    def _state(self) -> bytes:
        first = self.pending[0].batch if self.pending else self.position.batch
        facts = {
            "chain": self.chain, "batch": self.position.batch, "line": self.position.line, "hash": self.position.hash.hex(),
            "after": self.after, "ended": self.ended, "pending": self.position.batch - first,
        }  # fmt: skip
        return json.dumps(facts).encode()

    def _replace(self) -> None:
        """Write the file anew with what still counts, whole or not at all. Raises OSError; then the old one stays."""
        parts = [_frame(b"S", self._state())]
        moved: deque[Pending] = deque()
        at = len(parts[0])
        for item in self.pending:
            ends = self.ended and item is self.pending[-1]
            frame = _frame(b"E" if ends else b"B", os.pread(self._file, item.size, item.offset))
            parts.append(frame)
            moved.append(Pending(item.batch, at + _FRAME.size, item.size))
            at += len(frame)
        fresh = self.path.with_name(self.path.name + ".new")
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor)
            _write_all(descriptor, b"".join(parts), 0)
            os.fsync(descriptor)
            fresh.replace(self.path)
        except BaseException:
            os.close(descriptor)
            fresh.unlink(missing_ok=True)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._end, self.pending = descriptor, at, moved

    def _write(self, frame: bytes, *, sync: bool = True) -> None:
        try:
            _write_all(self._file, frame, self._end)
            if sync:
                os.fdatasync(self._file)
        except OSError:
            # Half a frame must not stand before the next whole one.
            os.ftruncate(self._file, self._end)
            raise
        self._end += len(frame)

    def _read(self) -> None:
        frames = self._frames()
        kind, _, payload = next(frames, (b"", 0, b""))
        if kind != b"S":
            raise ValueError(f"{self.path.name} does not begin as a spool file does")
        try:
            said = json.loads(payload)
            self.chain, self.after, self.ended = str(said["chain"]), int(said["after"]), bool(said["ended"])
            self.position = Position(int(said["batch"]), int(said["line"]), bytes.fromhex(said["hash"]))
            kept = int(said["pending"])
        except (ValueError, KeyError, TypeError) as exc:
            raise ValueError(f"the first frame of {self.path.name} can't be read") from exc
        first = self.position.batch - kept
        for kind, offset, payload in frames:
            if kind in (b"B", b"E"):
                try:
                    seal, _ = read_seal(payload)
                except BadBatch as exc:
                    raise ValueError(f"{self.path.name} holds what is no batch") from exc
                if seal.batch < first:
                    continue
                self.pending.append(Pending(seal.batch, offset, len(payload)))
                self.pending_bytes += len(payload) + _FRAME.size
                if seal.batch >= self.position.batch:
                    self.position = seal.next
                    self.ended = kind == b"E"
            elif kind == b"A":
                batch, self.after = _ACK.unpack(payload)
                while self.pending and self.pending[0].batch <= batch:
                    self.pending_bytes -= self.pending.popleft().size + _FRAME.size

    def _frames(self) -> Iterator[tuple[bytes, int, bytes]]:
        """(kind, offset of the payload, payload) of each whole frame; what follows the last one is cut off."""
        size, at = os.fstat(self._file).st_size, 0
        while True:
            head = os.pread(self._file, _FRAME.size, at)
            if len(head) < _FRAME.size:
                break
            length, check, kind = _FRAME.unpack(head)
            if length > _MAX_PAYLOAD or at + _FRAME.size + length > size:
                break
            payload = os.pread(self._file, length, at + _FRAME.size)
            if len(payload) < length or zlib.crc32(kind + payload) != check:
                break
            yield kind, at + _FRAME.size, payload
            at += _FRAME.size + length
        self.cut_bytes = size - at
        self._end = at
        if self.cut_bytes and at:
            # Without even a first frame it is no file of ours, and stays as it is.
            os.ftruncate(self._file, at)


def left_behind(folder: Path) -> list[Path]:
    """Files of chains in this folder, oldest first; unfinished copies are removed."""
    for copy in folder.glob(f"*{SUFFIX}.new"):
        _remove_if_free(copy)
    found = []
    for path in folder.glob(f"*{SUFFIX}"):
        try:
            found.append((path.stat().st_mtime_ns, path.name, path))
        except FileNotFoundError:
            # Another process of the front door has just done with it.
            continue
    return [path for _, _, path in sorted(found)]


def _remove_if_free(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _lock(descriptor)
        if _is_same(descriptor, path):
            path.unlink(missing_ok=True)
    except SpoolInUse:
        # A living process is just replacing its file.
        return
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise SpoolInUse("another process holds it") from exc
        raise


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether the path still names the open file."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)


def _frame(kind: bytes, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload), zlib.crc32(kind + payload), kind) + payload


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written
