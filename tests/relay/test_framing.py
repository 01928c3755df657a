"""Bodies: the end is found wherever reads are torn; broken chunks are refused."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import errors
from libs.common.relay.framing import Chunked, Length, UntilClose, of_response
from libs.common.relay.head import parse_response

CHUNKED = b"4\r\nWiki\r\n5;ext=1\r\npedia\r\n0\r\nX-Sum: 1\r\n\r\n"


@given(st.lists(st.integers(1, len(CHUNKED) - 1), max_size=8), st.binary(max_size=20))
def test_chunked_body_ends_at_the_same_place_however_it_is_torn(cuts, after):
    data = CHUNKED + after
    points = [0, *sorted(set(cuts)), len(data)]
    framing, used = Chunked(), 0
    for start, end in itertools.pairwise(points):
        if framing.done:
            break
        piece = data[start:end]
        taken = framing.scan(piece)
        used += taken
        assert taken == len(piece) or framing.done
    assert framing.done
    assert used == len(CHUNKED)


@given(st.binary(min_size=1, max_size=50), st.integers(0, 60))
def test_length_never_takes_more_than_it_says(data, size):
    framing = Length(size)
    assert framing.scan(data) == min(size, len(data))
    assert framing.done == (len(data) >= size)


BROKEN = [
    b"x\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b" 1\r\n", b"1 \r\n", b"1\n", b"\r\n", b"1\r\nab\r\n", b"1\r\na\n", b"10000000000000000\r\n",
    b"1;a\nb\r\n", b"1;a\x00\r\n", b"0\r\nImpersonate-User: x\r\n", b"0\r\nContent-Length: 5\r\n", b"0\r\nAuthorization: x\r\n",
    b"0\r\nTransfer\r\n", b"0\r\nX_Remote_User: a\r\n", b"1" * 5000, b"1 ;a\r\n", b"1\t;a\r\n",
    b"0\r\nTransfer-Encoding: chunked\r\n", b"0\r\nConnection: x\r\n", b"0\r\nProxy-Authorization: x\r\n", b"0\r\nLocation: x\r\n",
    b"0\r\nUpgrade: x\r\n", b"0\r\nExpect: x\r\n", b"0\r\n" + b"A: b\r\n" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("data", BROKEN)
def test_broken_chunks_are_refused(data):
    with pytest.raises(errors.BadRequest):
        Chunked().scan(data)


@given(st.binary(max_size=200))
def test_scan_never_fails_otherwise_and_never_overruns(data):
    with contextlib.suppress(errors.BadRequest):
        assert 0 <= Chunked().scan(data) <= len(data)


@pytest.mark.parametrize(
    ("method", "raw", "kind", "done"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Length, True),
        (b"GET", b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", Length, True),
        (b"GET", b"HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n", Length, True),
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Length, False),
        (b"GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Chunked, False),
        (b"GET", b"HTTP/1.1 200 OK\r\n\r\n", UntilClose, False),
    ],
)
def test_response_framing_follows_the_rfc(method, raw, kind, done):
    framing = of_response(method, parse_response(raw))
    assert isinstance(framing, kind)
    assert framing.done is done
