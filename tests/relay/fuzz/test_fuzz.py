"""The fuzzer for a few seconds, as everybody runs it; `make fuzz` runs it for longer. And bounds of time on the largest heads."""

from __future__ import annotations

import random
import time

import pytest

from libs.common import errors
from libs.common.relay.framing import Chunked
from libs.common.relay.head import MAX_HEAD, parse_request, parse_response
from tests.relay.fuzz import run

pytestmark = pytest.mark.timeout(0)


def test_accepted_heads_are_read_alike_by_llhttp_and_h11_and_go_on_as_meant():
    assert run.run_heads(random.Random(run.seed()), run.seconds()) > 20


def test_answers_heads_are_read_alike_and_lose_only_what_they_must():
    assert run.run_answers(random.Random(run.seed()), run.seconds())


def test_small_readers_take_any_bytes():
    assert run.run_readers(random.Random(run.seed()), run.seconds())


async def test_far_side_gets_the_requests_that_h11_reads_in_the_same_stream():
    assert await run.run_requests(random.Random(run.seed()), run.seconds()) > 20


async def test_client_gets_the_answer_that_h11_reads_or_an_error():
    assert await run.run_replies(random.Random(run.seed()), run.seconds()) > 10


HEAVY = {
    "one long value": lambda size: b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * size + b"\r\n\r\n",
    "one long value of blanks": lambda size: b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b" " * size + b"a\r\n\r\n",
    "blanks and a NUL": lambda size: b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b" " * size + b"\0\r\n\r\n",
    "one long name": lambda size: b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a" * size + b": x\r\n\r\n",
    "one long name without colon": lambda size: b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a" * size + b"\r\n\r\n",
    "one long target": lambda size: b"GET /" + b"a" * size + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "one long target without end": lambda size: b"GET /" + b"a" * size + b"\r\nHost: a\r\n\r\n",
    "many fields": lambda size: b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a:\r\n" * (size // 4) + b"\r\n",
    "many short fields with underscores": lambda size: (
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a_b:c\r\n" * (size // 8) + b"\r\n"
    ),
    "many identities": lambda size: b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-Remote-A: b\r\n" * (size // 16) + b"\r\n",
    "many options": lambda size: b"GET / HTTP/1.1\r\nHost: a\r\nConnection: " + b"," * size + b"\r\n\r\n",
    "many LF": lambda size: b"GET / HTTP/1.1\r\nHost: a\r\n" + b"\n" * size + b"\r\n\r\n",
    "many CR": lambda size: b"GET / HTTP/1.1\r\nHost: a\r\n" + b"\r" * size + b"\r\n\r\n",
    "an answer of many fields": lambda size: b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * (size // 4) + b"\r\n",
    "an answer with a long reason": lambda size: b"HTTP/1.1 200 " + b"a " * (size // 2) + b"\r\n\r\n",
    "answers' many options": lambda size: b"HTTP/1.1 200 OK\r\nConnection: " + b"a," * (size // 2) + b"\r\n\r\n",
}


def measure(raw: bytes) -> float:
    best = 1.0
    for _ in range(5):
        began = time.thread_time()
        for parse in (parse_request, parse_response):
            try:
                parse(raw)
            except errors.BadRequest:
                continue
        best = min(best, time.thread_time() - began)
    return best


@pytest.mark.parametrize("shape", HEAVY)
def test_time_per_byte_of_a_head_does_not_grow_with_its_size(shape):
    """Eight times the bytes are eight times the time; a quadratic reader would need sixty-four."""
    small, large = HEAVY[shape](MAX_HEAD // 16), HEAVY[shape](MAX_HEAD // 2)
    # The machine may be busy: what counts is that it can be done.
    assert any(measure(large) < 24 * measure(small) + 0.002 for _ in range(8))


def test_time_of_a_chunked_body_in_single_bytes_is_that_of_its_bytes():
    body = b"1;%s\r\na\r\n" % (b"e" * 4000)
    began = time.thread_time()
    chunked = Chunked()
    for _ in range(10):
        for byte in body:
            chunked.scan(bytes([byte]))
    assert time.thread_time() - began < 5
