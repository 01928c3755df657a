"""A stream is read as it was meant, however it is cut; what can't be read ends it, at once and with little memory."""

from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.recording.channels import MAX_RESIZE, Ending, Resizes
from libs.common.recording.decoder import make_decoder
from libs.common.recording.events import ERROR, RESIZE, STDERR, STDIN, STDOUT, Undecodable
from libs.common.recording.spdy import SYN_STREAM, SpdyDecoder
from libs.common.recording.spdy_headers import DICTIONARY, DICTIONARY_ID
from libs.common.recording.websocket import WebSocketDecoder
from tests.recording.reading import NAMES, capture, cut, decoder_of, feed, joined

QUICK = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
LINES = b"".join(b"line %d of what goes in\n" % n for n in range(900))


def ending(found):
    end = Ending()
    end.feed(found[(False, ERROR)][0])
    return end.read()


def test_there_are_captures_of_both_protocols():
    assert len(NAMES) == 6


@pytest.mark.parametrize("carrier", ["websocket", "spdy"])
def test_both_outputs_and_the_exit_code_are_read(carrier):
    read = capture(f"{carrier}-plain")
    found = joined(feed(decoder_of(read), read.chunks))
    assert found[(False, STDOUT)] == [b"out\n"]
    assert found[(False, STDERR)] == [b"err\n"]
    code, message = ending(found)
    assert code == 7
    assert message.endswith("exit code 7")


@pytest.mark.parametrize("carrier", ["websocket", "spdy"])
def test_what_goes_in_and_comes_back_is_read_whole(carrier):
    read = capture(f"{carrier}-stdin")
    found = joined(feed(decoder_of(read), read.chunks))
    assert found[(True, STDIN)] == [LINES]
    assert found[(False, STDOUT)] == [LINES]
    assert ending(found) == (0, "")


@pytest.mark.parametrize("carrier", ["websocket", "spdy"])
def test_a_terminals_sizes_and_typing_are_told_apart(carrier):
    read = capture(f"{carrier}-terminal")
    found = joined(feed(decoder_of(read), read.chunks))
    assert found[(True, RESIZE)] == [b"80x24", b"100x30"]
    assert b"hunter2-typed" in found[(True, STDIN)][0]
    assert b"hunter2-typed" not in found[(False, STDOUT)][0]
    assert b"30 100" in found[(False, STDOUT)][0]
    assert ending(found)[0] == 3


@pytest.mark.parametrize("name", NAMES)
@QUICK
@given(sizes=st.lists(st.integers(1, 700), min_size=1, max_size=8))
def test_any_cut_of_the_bytes_gives_the_same(name, sizes):
    read = capture(name)
    assert joined(feed(decoder_of(read), cut(read.chunks, sizes))) == joined(feed(decoder_of(read), read.chunks))


@pytest.mark.parametrize("name", [n for n in NAMES if "stdin" not in n])
def test_one_byte_at_a_time_gives_the_same(name):
    read = capture(name)
    assert joined(feed(decoder_of(read), cut(read.chunks, [1]))) == joined(feed(decoder_of(read), read.chunks))


@pytest.mark.parametrize("name", NAMES)
@QUICK
@given(data=st.data())
def test_a_changed_byte_is_read_or_refused_and_never_anything_else(name, data):
    read = capture(name)
    number = data.draw(st.integers(0, len(read.chunks) - 1))
    from_client, chunk = read.chunks[number]
    at, value = data.draw(st.integers(0, len(chunk) - 1)), data.draw(st.integers(0, 255))
    read.chunks[number] = (from_client, chunk[:at] + bytes([value]) + chunk[at + 1 :])
    try:
        feed(decoder_of(read), read.chunks)
    except Undecodable:
        return


@pytest.mark.parametrize("make", [lambda: SpdyDecoder(""), lambda: WebSocketDecoder("v5.channel.k8s.io")])
@QUICK
@given(chunks=st.lists(st.tuples(st.booleans(), st.binary(max_size=4096)), max_size=20))
def test_garbage_is_refused_and_never_hoarded(make, chunks):
    decoder = make()
    given = sum(len(data) for _, data in chunks)
    try:
        pieces = feed(decoder, chunks)
    except Undecodable:
        return
    assert sum(len(piece.data) for _, piece in pieces) <= given


def test_a_frame_that_promises_gigabytes_is_passed_on_in_parts_and_not_kept():
    decoder = WebSocketDecoder("v5.channel.k8s.io")
    pieces = decoder.from_server(b"\x82\x7f" + (2**40).to_bytes(8, "big") + b"\x01begin")
    for _ in range(100):
        pieces += decoder.from_server(b"x" * 10_000)
    assert sum(len(piece.data) for piece in pieces) == 5 + 1_000_000
    assert len(decoder._server._frames.buffer) == 0


def test_a_spdy_header_block_that_unfolds_to_megabytes_is_refused():
    packer = zlib.compressobj(zdict=DICTIONARY)
    block = packer.compress(b"\x00" * 4_000_000) + packer.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(Undecodable):
        SpdyDecoder("").from_client(syn_stream(1, block))


def test_the_dictionary_is_the_published_one():
    assert zlib.adler32(DICTIONARY) == DICTIONARY_ID


# ── WebSocket: what only a hostile client sends ──


def from_client(payload: bytes, *, opcode: int = 2, fin: bool = True, mask: bytes = b"\x01\x02\x03\x04") -> bytes:
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    assert len(payload) < 126
    return bytes([(0x80 if fin else 0) | opcode, 0x80 | len(payload)]) + mask + masked


def test_a_fragmented_message_is_one_message_and_a_ping_may_stand_in_between():
    decoder = WebSocketDecoder("v5.channel.k8s.io")
    data = from_client(b"\x00one ", fin=False) + from_client(b"ping", opcode=9) + from_client(b"two", opcode=0)
    assert b"".join(piece.data for piece in decoder.from_client(data)) == b"one two"


@pytest.mark.parametrize(
    "data",
    [
        from_client(b"\x00x", opcode=0),
        from_client(b"\x00x", fin=False) + from_client(b"\x00x"),
        from_client(b"\x01output of its own"),
        from_client(b"\x07x"),
        from_client(b"\x04not a size"),
        from_client(b"\x04[1]"),
        b"\x82\x02\x00x",
        b"\xc2\x82\x01\x02\x03\x04\x01\x7a",
    ],
    ids=["continues-nothing", "two-at-once", "stdout", "no-channel", "size", "size-list", "unmasked", "compressed"],
)
def test_what_has_no_meaning_from_a_client_is_refused(data):
    with pytest.raises(Undecodable):
        WebSocketDecoder("v5.channel.k8s.io").from_client(data)


def test_closing_a_channel_is_known_in_v5_only():
    closing = from_client(b"\xff\x00")
    assert WebSocketDecoder("v5.channel.k8s.io").from_client(closing) == []
    with pytest.raises(Undecodable):
        WebSocketDecoder("v4.channel.k8s.io").from_client(closing)


@pytest.mark.parametrize(
    ("upgrade", "headers"),
    [
        (b"websocket", {"subprotocol": b"base64.channel.k8s.io"}),
        (b"websocket", {"subprotocol": b""}),
        (b"websocket", {"subprotocol": b"v5.channel.k8s.io", "extensions": b"permessage-deflate"}),
        (b"websocket", {"subprotocol": b"v5.channel.k8s.io,v4.channel.k8s.io"}),
        (b"h2c", {}),
    ],
)
def test_what_nobody_here_reads_is_refused_at_the_switch(upgrade, headers):
    with pytest.raises(Undecodable):
        make_decoder(upgrade, **({"subprotocol": b"", "extensions": b"", "stream_protocol": b""} | headers))


def test_last_words_are_said_between_messages_only():
    decoder = WebSocketDecoder("v5.channel.k8s.io")
    words = decoder.last_words("the reason")
    assert words[0] == 0x82
    assert json.loads(words[3 : 2 + words[1]] if words[1] < 126 else words[5 : 4 + int.from_bytes(words[2:4], "big")])[
        "message"
    ] == "the reason"  # fmt: skip
    decoder.from_server(b"\x82\x05\x01ab")
    assert decoder.last_words("x") == b""


# ── SPDY ──


def syn_stream(stream: int, block: bytes) -> bytes:
    content = stream.to_bytes(4, "big") + b"\x00" * 6 + block
    return b"\x80\x03" + SYN_STREAM.to_bytes(2, "big") + b"\x00" + len(content).to_bytes(3, "big") + content


class Blocks:
    def __init__(self) -> None:
        self._packer = zlib.compressobj(zdict=DICTIONARY)

    def block(self, *pairs: tuple[bytes, bytes]) -> bytes:
        plain = len(pairs).to_bytes(4, "big")
        for text in (text for pair in pairs for text in pair):
            plain += len(text).to_bytes(4, "big") + text
        return self._packer.compress(plain) + self._packer.flush(zlib.Z_SYNC_FLUSH)


def data(stream: int, content: bytes) -> bytes:
    return stream.to_bytes(4, "big") + b"\x00" + len(content).to_bytes(3, "big") + content


def opened(*kinds: bytes) -> SpdyDecoder:
    decoder, blocks = SpdyDecoder("v4.channel.k8s.io"), Blocks()
    for number, kind in enumerate(kinds):
        decoder.from_client(syn_stream(2 * number + 1, blocks.block((b"streamtype", kind))))
    return decoder


def test_a_size_may_be_cut_between_frames():
    decoder = opened(b"resize")
    assert decoder.from_client(data(1, b'{"Width":1')) == []
    assert [p.data for p in decoder.from_client(data(1, b'20,"Height":40}\n{"Width":80,"Height":24}\n'))] == [
        b"120x40",
        b"80x24",
    ]


@pytest.mark.parametrize(
    "pairs",
    [
        [(b"streamtype", b"stdout"), (b"streamtype", b"stdin")],
        [(b"Streamtype", b"stdout")],
        [(b"streamtype", b"stdin\x00stdout")],
        [(b"other", b"stdout")],
        [],
    ],
    ids=["twice", "upper-case", "two-values", "other-name", "none"],
)
def test_a_stream_whose_kind_could_be_read_in_two_ways_is_refused(pairs):
    with pytest.raises(Undecodable):
        SpdyDecoder("").from_client(syn_stream(1, Blocks().block(*pairs)))


def test_a_stream_that_is_opened_twice_is_refused():
    decoder, blocks = SpdyDecoder(""), Blocks()
    decoder.from_client(syn_stream(1, blocks.block((b"streamtype", b"stdout"))))
    with pytest.raises(Undecodable):
        decoder.from_client(syn_stream(1, blocks.block((b"streamtype", b"stdin"))))


def test_output_on_a_stream_that_nobody_opened_is_refused():
    with pytest.raises(Undecodable):
        opened(b"stdin").from_server(data(9, b"hidden"))


def test_output_on_the_input_stream_is_refused_rather_than_lost():
    with pytest.raises(Undecodable):
        opened(b"stdin").from_server(data(1, b"hidden"))


def test_spdys_last_words_are_a_status_on_the_error_stream():
    decoder = opened(b"error", b"stdout")
    words = decoder.last_words("the reason")
    assert words[:5] == b"\x00\x00\x00\x01\x01"
    assert json.loads(words[8:])["message"] == "the reason"
    decoder.from_server(data(3, b"whole") + b"\x00\x00\x00\x03")
    assert decoder.last_words("x") == b""


# ── the small channels ──


def test_sizes_that_never_end_are_refused():
    with pytest.raises(Undecodable):
        Resizes().feed(b'{"' + b"x" * MAX_RESIZE)


@pytest.mark.parametrize("text", [b'{"Width":-1,"Height":2}', b'{"Width":1e9,"Height":2}', b'{"Width":true,"Height":1}', b"{" * 600 + b"["])  # fmt: skip
def test_sizes_that_are_none_are_refused(text):
    sizes = Resizes()
    with pytest.raises(Undecodable):
        sizes.feed(text + b" " * MAX_RESIZE)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (b"", (None, "")),
        (b'{"status":"Success"}', (0, "")),
        (b'{"status":"Failure","message":"no"}', (None, "no")),
        (
            b'{"status":"Failure","message":"m","details":{"causes":[{"reason":"ExitCode","message":"137"}]}}',
            (137, "m"),
        ),
        (
            b'{"status":"Failure","message":"m","details":{"causes":[{"reason":"ExitCode","message":"no"}]}}',
            (None, "m"),
        ),
        (b'{"status":"Failure","message":"m","details":[]}', (None, "m")),
        (b"error executing remote command", (None, "error executing remote command")),
        (b"[1]", (None, "[1]")),
    ],
)
def test_the_end_is_read_from_whatever_the_cluster_says(said, read):
    end = Ending()
    end.feed(said)
    assert end.read() == read
