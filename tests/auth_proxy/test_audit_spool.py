"""The spool file, cut anywhere: what was whole is there, what was half is gone, and nothing is made up."""

from __future__ import annotations

import errno
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.audit.chain import read_batch, seal_batch
from services.auth_proxy import audit_spool
from services.auth_proxy.audit_spool import Spool, SpoolInUse, left_behind

KEY = Ed25519PrivateKey.generate()


def append(spool: Spool, text: str, *, ends: bool = False) -> None:
    message, position = seal_batch(KEY, spool.chain, spool.position, [text.encode()], "2026-01-02T03:04:05.000000Z")
    spool.append(message, position, ends=ends)


def drain(spool: Spool) -> list[str]:
    """All batches that wait, in order, as if they were stored."""
    found = []
    while spool.pending:
        _, message = spool.read_first()
        found.append(read_batch(message)[1][0].decode())
        spool.stored(spool.after + 1)
    return found


def test_what_was_appended_is_there_after_a_crash_and_only_its_owner_can_read_it(tmp_path):
    spool = Spool.create(tmp_path, "a")
    for text in ("one", "two", "three"):
        append(spool, text)
    spool.stored(7)
    assert spool.path.stat().st_mode & 0o777 == 0o600
    spool.close()
    again = Spool.open(spool.path)
    assert (again.position, again.after, again.ended, again.cut_bytes) == (spool.position, 7, False, 0)
    assert again.pending_bytes == spool.pending_bytes
    assert drain(again) == ["two", "three"]
    append(again, "end", ends=True)
    again.close()
    assert Spool.open(spool.path).ended


def test_a_living_process_keeps_its_file(tmp_path):
    spool = Spool.create(tmp_path, "a")
    with pytest.raises(SpoolInUse):
        Spool.open(spool.path)
    spool.close()
    Spool.open(spool.path).close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(
    steps=st.lists(st.sampled_from(["append", "stored"]), max_size=12),
    cut=st.floats(0, 1),
    tail=st.binary(max_size=20),
    moved=st.booleans(),
)
def test_a_file_that_is_cut_anywhere_holds_what_was_whole_by_then(tmp_path, steps, cut, tail, moved):
    path = tmp_path / "a.spool"
    path.unlink(missing_ok=True)
    spool = Spool.create(tmp_path, "a")
    begin = path.stat().st_size
    moments = [(begin, [], 0)]
    """(size of the file, what waits, sequence) after each step."""
    waiting: list[str] = []
    for number, step in enumerate(steps):
        if step == "append":
            append(spool, f"b{number}")
            waiting = [*waiting, f"b{number}"]
        elif waiting:
            spool.stored(spool.after + 1)
            waiting = waiting[1:]
        if moved and number == len(steps) // 2:
            spool._replace()
            moments = []
            begin = path.stat().st_size
        moments.append((path.stat().st_size, waiting, spool.after))
    spool.close()
    if not moments:
        return
    size = begin + round((path.stat().st_size - begin) * cut)
    with path.open("r+b") as file:
        file.truncate(size)
        file.seek(size)
        file.write(tail)
    expected = max((m for m in moments if m[0] <= size), key=lambda m: (m[0], m[2]))
    again = Spool.open(path)
    assert again.after == expected[2]
    position = again.position
    assert drain(again) == expected[1]
    append(again, "next")
    assert again.position.batch == position.batch + 1
    assert drain(again) == ["next"]
    again.close()


def test_a_file_whose_first_frame_is_cut_says_so(tmp_path):
    spool = Spool.create(tmp_path, "a")
    spool.close()
    os.truncate(spool.path, 5)
    with pytest.raises(ValueError, match="does not begin as a spool file does"):
        Spool.open(spool.path)


def test_a_write_that_the_disk_cuts_leaves_no_half_frame(tmp_path, monkeypatch):
    spool = Spool.create(tmp_path, "a")
    append(spool, "one")
    real = os.pwrite

    def full(descriptor, data, offset):
        if len(data) > 20:
            return real(descriptor, data[:20], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(audit_spool.os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        append(spool, "two")
    monkeypatch.undo()
    append(spool, "three")
    spool.close()
    again = Spool.open(spool.path)
    assert again.cut_bytes == 0
    assert drain(again) == ["one", "three"]


def test_the_file_shrinks_when_most_of_it_is_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_spool, "_TIDY_BYTES", 2000)
    spool = Spool.create(tmp_path, "a")
    for number in range(40):
        append(spool, f"b{number}")
        if number >= 2:
            spool.stored(spool.after + 1)
    assert spool.path.stat().st_size < 4000
    spool.close()
    assert drain(Spool.open(spool.path)) == ["b38", "b39"]


def test_unfinished_copies_are_removed_and_the_oldest_chain_comes_first(tmp_path):
    for moment, name in enumerate(["z", "a"]):
        spool = Spool.create(tmp_path, name)
        spool.close()
        os.utime(spool.path, (moment, moment))
    (tmp_path / "z.spool.new").write_bytes(b"half")
    assert [path.name for path in left_behind(tmp_path)] == ["z.spool", "a.spool"]
    assert not (tmp_path / "z.spool.new").exists()
