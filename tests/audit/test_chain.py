"""Whatever is done to a log after it was written, the verification names it. And nothing is said of one that is whole."""

from __future__ import annotations

import json
import zlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.audit.chain import BadBatch, Position, read_batch, read_seal, render, seal_batch
from libs.common.audit.event import format_micro, render_record
from libs.common.audit.verify import LogVerifier

KEY = Ed25519PrivateKey.generate()
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
AT = NOW.timestamp()


def event(number: int) -> bytes:
    return b'{"kind":"Event","n":%d}' % number


class Maker:
    """Writes one chain."""

    def __init__(self, chain: str, key: Ed25519PrivateKey = KEY) -> None:
        self.chain, self.key, self.position, self.messages = chain, key, Position(), []

    def add(self, *lines: bytes, at: float = AT) -> Maker:
        message, self.position = seal_batch(self.key, self.chain, self.position, lines, format_micro(at))
        self.messages.append(message)
        return self

    def start(self, *follows: Maker) -> Maker:
        named = [
            {"chain": f.chain, "batch": f.position.batch, "line": f.position.line, "hash": f.position.hash.hex()} for f in follows
        ]  # fmt: skip
        return self.add(render_record("start", AT, follows=named))

    def end(self, how: str = "stopped") -> Maker:
        return self.add(render_record("end", AT, how=how))


def whole() -> list[bytes]:
    """A chain of five batches, and the one that follows it."""
    first = Maker("a").start().add(event(1), event(2)).add(event(3)).add(event(4)).end()
    return [*first.messages, *Maker("b").start(first).add(event(5)).end().messages]


def verify(messages: list[bytes], *, now: datetime | None = NOW, partial: bool = False, key=KEY) -> LogVerifier:
    verifier = LogVerifier(key.public_key(), partial=partial)
    for number, message in enumerate(messages):
        try:
            verifier.feed(*read_batch(message), f"#{number}")
        except BadBatch as exc:
            verifier.malformed(f"#{number}", str(exc))
    verifier.finish(now)
    return verifier


def test_a_whole_log_has_no_findings():
    found = verify(whole())
    assert found.findings == []
    assert (found.batches, found.events, len(found.chains)) == (8, 5, 2)


def tampered(message: bytes, old: bytes, new: bytes) -> bytes:
    header, signature, packed = message.split(b"\n", 2)
    content = zlib.decompress(packed)
    assert old in content
    return b"\n".join((header, signature, zlib.compress(content.replace(old, new))))


def move(messages: list[bytes], at: int, to: int) -> list[bytes]:
    moved = list(messages)
    moved.insert(to, moved.pop(at))
    return moved


def header_changed(message: bytes, old: bytes, new: bytes) -> bytes:
    header, rest = message.split(b"\n", 1)
    assert old in header
    return header.replace(old, new) + b"\n" + rest


def forged(messages: list[bytes]) -> list[bytes]:
    """What somebody with write access to the bus can make: right in everything but the key."""
    other = Maker("a", Ed25519PrivateKey.generate())
    other.position = read_seal(messages[1])[0].next
    return [*messages[:2], other.add(event(99)).messages[0], *messages[3:]]


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (lambda m: [*m[:1], tampered(m[1], b'"n":1', b'"n":7'), *m[2:]], "batch 1 (#1) was changed"),
        (lambda m: [*m[:1], tampered(m[1], b'{"kind":"Event","n":1}\n', b""), *m[2:]], "batch 1 (#1) was changed"),
        (lambda m: [*m[:1], tampered(m[1], b"\n", b'\n{"kind":"Event","n":8}\n'), *m[2:]], "batch 1 (#1) was changed"),
        (lambda m: [*m[:2], *m[3:]], "batch 2 missing before batch 3 (#2): 1 lines"),
        (lambda m: [*m[:1], *m[4:]], "batch 1 to 3 missing before batch 4 (#1): 4 lines"),
        (lambda m: m[1:], "begins at batch 1: what was before is not here"),
        (lambda m: m[5:], "follows chain a, which is not here"),
        (lambda m: move(m, 2, 1), "comes twice or out of order"),
        (lambda m: [*m[:3], m[2], *m[3:]], "batch 2 (#3) comes twice or out of order: batch 3 was next"),
        (lambda m: [*m, m[0]], "comes twice or out of order"),
        (lambda m: [*m[:3], *m[5:]], "was cut or continued: chain b says that it ended before batch 5"),
        (lambda m: [*m[:4], *m[5:]], "was cut or continued: chain b says that it ended before batch 5"),
        (lambda m: [*m[:1], header_changed(m[1], b'"count":2', b'"count":1'), *m[2:]], "batch 1 (#1) is not signed"),
        (lambda m: [*m[:1], header_changed(m[1], b'"chain":"a"', b'"chain":"b"'), *m[2:]], "is not signed"),
        (forged, "batch 2 (#2) is not signed by the hub's key"),
        (lambda m: [*m[:1], m[1][:-3], *m[2:]], "#1: its content is cut or too large"),
        (lambda m: [*m[:1], b"rubbish", *m[2:]], "#1: it has no header"),
    ],
)  # fmt: skip
def test_every_kind_of_tampering_is_named(tamper, words):
    found = verify(tamper(whole()))
    assert found.worst == "broken"
    assert any(words in f.text for f in found.findings if f.severity == "broken"), found.findings


def test_another_hubs_log_is_not_taken_for_ours():
    assert verify(whole(), key=Ed25519PrivateKey.generate()).worst == "broken"


@settings(deadline=None)
@given(st.data())
def test_no_byte_can_be_changed_unseen(data):
    messages = whole()
    which = data.draw(st.integers(0, len(messages) - 1))
    at = data.draw(st.integers(0, len(messages[which]) - 1))
    changed = bytearray(messages[which])
    changed[at] ^= data.draw(st.integers(1, 255))
    again = [*messages[:which], bytes(changed), *messages[which + 1 :]]
    if read_lines(again[which]) != read_lines(messages[which]):
        assert verify(again).worst == "broken"


def read_lines(message: bytes) -> object:
    """What a batch says; bytes of the packing that change nothing of it don't matter."""
    try:
        return read_batch(message)
    except BadBatch:
        return None


@settings(deadline=None)
@given(st.lists(st.integers(0, 7), max_size=10))
def test_only_a_log_in_order_from_its_beginning_has_no_findings(order):
    messages = whole()
    found = verify([messages[i] for i in order])
    assert (found.findings == []) == (order == list(range(len(order))))


def test_a_cut_end_that_nobody_took_up_is_told_once_it_is_silent():
    messages = whole()[:3]
    assert verify(messages).findings == []
    late = verify(messages, now=NOW + timedelta(minutes=10))
    assert late.worst == "gap"
    assert "has no end" in late.findings[0].text
    assert verify(messages, now=None).worst == "note"


def test_what_is_older_than_the_log_is_no_tampering():
    messages = whole()
    assert verify(messages[2:], partial=True).worst == "note"
    assert verify(messages[5:], partial=True).worst == "note"
    assert verify([*messages[2:3], *messages[4:]], partial=True).worst == "broken"


def test_a_killed_front_door_and_its_loss_are_gaps():
    killed = Maker("a").start().add(event(1)).end("killed")
    after = Maker("b").start(killed).add(render_record("gap", AT, lost=3, refused=1, since="x", why="full")).end()
    found = verify(killed.messages + after.messages)
    assert [f.severity for f in found.findings] == ["gap", "gap"]
    assert "without a stop" in found.findings[0].text
    assert "3 events lost and 1 calls refused" in found.findings[1].text


def test_a_batch_after_the_end_of_its_chain_is_no_part_of_it():
    assert verify(Maker("a").start().end().add(event(1)).messages).worst == "broken"


def test_a_batch_that_unpacks_to_more_than_writers_make_is_refused():
    message, _ = seal_batch(KEY, "a", Position(), [b"x" * (9 * 1024 * 1024)], format_micro(AT))
    with pytest.raises(BadBatch, match="cut or too large"):
        read_batch(message)


def test_what_the_fast_encoder_refuses_is_written_all_the_same():
    assert json.loads(render({"n": 1 << 70})) == {"n": 1 << 70}
    assert json.loads(render({"text": "a\ud800b"})) == {"text": "a?b"}
