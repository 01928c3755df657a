"""The fuzzing loops: each target draws inputs from the corpus until its time is over. A finding is written into the corpus and raised.

`FUZZ_SECONDS` is the time of all targets together, `FUZZ_SEED` repeats a run.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from libs.common.relay.head import Block, parse_request
from tests.relay.fuzz import corpus, heads, readers, streams
from tests.relay.fuzz.mutate import mutate

TARGETS = 7
"""Five, of which two run on both event loops."""


def seconds(default: float = 20.0) -> float:
    """How long one target runs."""
    return float(os.environ.get("FUZZ_SECONDS", default)) / TARGETS


@cache
def seed() -> int:
    return int(os.environ.get("FUZZ_SEED", time.time_ns() % 1_000_000))


def until(limit_s: float) -> Iterator[int]:
    """Numbers until the time is over."""
    end = time.monotonic() + limit_s
    number = 0
    while time.monotonic() < end:
        yield number
        number += 1


@contextmanager
def watching(kind: str, data: bytes, number: int) -> Iterator[None]:
    """What goes wrong inside is a finding: the input is kept as a file of the corpus."""
    try:
        yield
    except Exception as exc:
        file = corpus.save_finding(kind, f"found-{hashlib.sha256(data).hexdigest()[:12]}", data)
        raise AssertionError(
            f"{exc!r}\nafter {number} inputs; the input is in {file}, the seed was {seed()}: {data[:400]!r}"
        ) from exc


def run_heads(source: random.Random, limit_s: float) -> int:
    """Request heads; returns how many were accepted."""
    known = [*corpus.load("request"), *corpus.load("smuggling")]
    last: Block | None = None
    accepted = 0
    for number in until(limit_s):
        raw = heads.cut(known[number] if number < len(known) else mutate(source.choice(known), source, known))
        if last is not None and source.random() < 0.2:
            # As a kept connection does: another first line before the same fields.
            line = mutate(source.choice(known).partition(b"\r\n")[0], source, known).partition(b"\r\n")[0]
            raw = heads.cut(line + b"\r\n" + last.raw)
        with watching("request", raw, number):
            head = heads.check_request(raw, last)
            if head is not None:
                accepted += 1
                readers.check_notes(head)
                readers.check_guard(head)
                last = parse_request(raw).block
    return accepted


def run_answers(source: random.Random, limit_s: float) -> int:
    known = corpus.load("response")
    for number in until(limit_s):
        raw = heads.cut(known[number] if number < len(known) else mutate(source.choice(known), source, known))
        with watching("response", raw, number):
            heads.check_response(raw)
    return number


def run_readers(source: random.Random, limit_s: float) -> int:
    bodies = corpus.load("chunked")
    targets = [
        b"prod/api/v1/pods?watch=true",
        b"prod/a%2fb/..%2e/x",
        b"prod/%2e%2e/x;y/z",
        b"prod/",
        b"a-b.c/x",
        b"prod//x",
        b"prod/a/./b\\c",
    ]
    parts = [
        readers.SUBPROTOCOL + b"aG1fYV9i",
        b"v5.channel.k8s.io",
        readers.SUBPROTOCOL,
        readers.SUBPROTOCOL + b"\xff=",
        b"",
    ]
    cookies = [
        b"__Host-herdsman-session=hm_a_b",
        b"a=b; __Host-herdsman-session=hm_a_b; c=d",
        b"__Host-herdsman-session",
        b"a=b;;c",
    ]
    claims = [b"X-CSRF-Token: ", b"X-CSRF-Token: \xff", b"Sec-Fetch-Site: same-origin", b"Origin: https://a"]
    for number in until(limit_s):
        body = mutate(source.choice(bodies), source, bodies)
        with watching("chunked", body, number):
            readers.check_chunked(body, source)
        target = bytes(c for c in mutate(source.choice(targets), source, targets) if 0x21 <= c <= 0x7E and c != 0x23)
        with watching("target", target, number):
            readers.check_target(target)
        changed = [
            mutate(source.choice(parts), source, parts) if source.random() < 0.3 else source.choice(parts)
            for _ in range(source.randrange(4))
        ]
        chosen = [part for part in changed if not {0x0A, 0x0D} & set(part)]
        with watching("subprotocol", b", ".join(chosen), number):
            readers.check_credential(chosen)
        pairs = [mutate(source.choice(cookies), source, cookies) for _ in range(source.randrange(4))]
        pairs = [pair for pair in pairs if not {0x0A, 0x0D} & set(pair)]
        lines = [source.choice(claims) for _ in range(source.randrange(3))]
        with watching("cookie", b"\n".join(pairs), number):
            readers.check_cookie(pairs, lines)
        with watching("signature", target, number):
            readers.check_signature(
                source.choice(("", "UKEY", target.decode("ascii"))), source.randbytes(source.choice((0, 10, 64, 86)))
            )
    return number


async def run_requests(source: random.Random, limit_s: float) -> int:
    """Streams of requests; returns how many requests arrived at the far side."""
    known = [heads.cut(raw) for raw in corpus.load("request")] + corpus.load("smuggling")
    bodies = corpus.load("chunked")
    found = corpus.load("stream") if (corpus.FOLDER / "stream").exists() else []
    arrived = 0
    for number in until(limit_s):
        stream = found[number] if number < len(found) else streams.make_stream(source, known, bodies)
        with watching("stream", stream, number):
            arrived += await streams.check_requests(stream, source)
    return arrived


async def run_replies(source: random.Random, limit_s: float) -> int:
    """Answers on a connection and in the handshake; returns how many reached the client whole."""
    known = corpus.load("response")
    bodies = corpus.load("chunked")
    greetings = [
        b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: herdsman-tunnel/2\r\n\r\n{"nonce":"aaaaaaaaaaaaaaaa","worker":"w"}\n{"waiting":0,"ca":""}\n',
        b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"[" * 60_000,
        b'HTTP/1.1 409 Conflict\r\nContent-Length: 15\r\n\r\n{"message":"x"}',
    ]
    whole = 0
    for number in until(limit_s):
        raw = known[number] if number < len(known) else mutate(source.choice(known), source, known + bodies)
        method = source.choice((b"GET", b"HEAD", b"POST"))
        with watching("response", raw, number):
            whole += await streams.check_answer(raw, method, source, lost=source.random() < 0.3)
        greeting = greetings[number] if number < len(greetings) else mutate(source.choice(greetings), source, greetings)
        with watching("handshake", greeting, number):
            await readers.check_handshake(greeting, source)
    return whole
