"""Checks of one head: what we accept, llhttp and h11 accept and read alike; what goes on is what was meant, with one identity."""

from __future__ import annotations

import time

from libs.common import errors
from libs.common.relay import guard, rebuild
from libs.common.relay.head import Block, Field, RequestHead, parse_request, parse_response
from libs.common.relay.names import (
    CLUSTER_RESPONSE_DROPPED,
    GATEWAY_REQUEST,
    HOP_BY_HOP,
    KUBERNETES_PLAIN,
    KUBERNETES_REQUEST,
)
from tests.relay.fuzz import referees

SLOW_S = 1.0
"""No head takes a hundredth of it; a machine with much else to do is no finding."""
IDENTITY = b"Impersonate-User: herdsman:ada\r\nImpersonate-Uid: 1\r\nImpersonate-Group: herdsman:x\r\n"
_FRAMING = {b"content-length", b"transfer-encoding", b"connection", b"upgrade"}


def cut(raw: bytes) -> bytes:
    """A head as the session would cut it out: to the first empty line, or with one added."""
    return (raw + b"\r\n\r\n").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def read_request(raw: bytes, last: Block | None = None) -> RequestHead | None:
    began = time.monotonic()
    try:
        return parse_request(raw, last)
    except errors.BadRequest as exc:
        is_sentence = bool(exc.message) and "\n" not in exc.message
        assert is_sentence, exc  # noqa: PT017 - every refusal says why
        return None
    finally:
        assert time.monotonic() - began < SLOW_S


def check_request(raw: bytes, last: Block | None = None) -> RequestHead | None:
    """The head if it is accepted. AssertionError is a finding."""
    head = read_request(raw)
    if last is not None:
        again = read_request(raw, last)
        assert (again is None) == (head is None), "a block that was read before changes what is accepted"
        if head is not None and again is not None:
            assert _facts(head) == _facts(again)
    if head is None:
        return None
    meant = ((head.method, head.target), _plain(head.fields))
    # llhttp reads it as Connection, which no standard says; it never goes on. And of HTTP/1.0's keep-alive and close in one message it takes the first,
    # where RFC 9112 9.3 lets close win.
    said = b",".join(head.values(b"connection")).lower()
    odd = bool(head.values(b"proxy-connection")) or (head.close and b"keep-alive" in said and b"close" in said)
    for name, read in (("llhttp", referees.llhttp_request(raw)), ("h11", referees.h11_request(raw))):
        assert read is not None, f"{name} refuses what we accept"
        assert (read.start, _lowered(read.fields)) == meant, f"{name} reads {read}"
        assert read.upgrade == bool(head.upgrade), name
        # With a switch of protocols each has its own idea of what "keep" means.
        assert head.upgrade or odd or read.keep_alive == (not head.close), name
    names = [lower for lower, _, _ in head.fields]
    assert head.chunked == (b"transfer-encoding" in names)
    assert (head.content_length is not None) == (b"content-length" in names)
    assert not (head.chunked and head.content_length is not None)
    if head.content_length is not None:
        assert head.content_length == int(head.value(b"content-length"))
    check_rebuilt(head)
    return head


def check_rebuilt(head: RequestHead) -> None:
    """For each list of names that may pass: the next reader sees the same request, only what may pass, and one identity."""
    for allowed in (KUBERNETES_REQUEST, KUBERNETES_PLAIN, GATEWAY_REQUEST):
        built = rebuild.request_head(
            head, head.target, allowed=allowed, host=b"up", own=[b"X-Own: 1"], identity=IDENTITY
        )
        rebuild.check_identity(built, IDENTITY)
        then = read_request(built)
        assert then is not None, "we refuse what we wrote"
        assert (then.method, then.target, then.host) == (head.method, head.target, b"up")
        assert (then.chunked, then.content_length, then.upgrade) == (head.chunked, head.content_length, head.upgrade)
        assert not then.close
        passed = [(lower, value) for lower, value, _ in head.fields if lower in allowed and lower != b"host"]
        framing = [(lower, value) for lower, value, _ in then.fields if lower in _FRAMING]
        assert len({lower for lower, _ in framing}) == len(framing)
        rest = [
            (lower, value)
            for lower, value, _ in then.fields
            if lower not in _FRAMING and not lower.startswith(b"impersonate-")
        ]
        assert rest == [(b"host", b"up"), *passed, (b"x-own", b"1")]
        if allowed is not GATEWAY_REQUEST:
            assert b"".join(line + b"\r\n" for line in guard.check(then)) == IDENTITY


def check_response(raw: bytes, method: bytes = b"GET") -> None:
    """AssertionError is a finding."""
    began = time.monotonic()
    try:
        head = parse_response(raw)
    except errors.BadRequest:
        return
    finally:
        assert time.monotonic() - began < SLOW_S
    # Fields are split only for whoever asks, and asking changes which way the head is rebuilt: look at a second one.
    fields = _plain(parse_response(raw).fields)
    readings = [("llhttp", referees.llhttp_response(raw))]
    if head.status != 101:
        readings.append(("h11", referees.h11_response(raw, method)))
    for name, read in readings:
        assert read is not None, f"{name} refuses what we accept"
        assert (read.start, _lowered(read.fields)) == ((b"%d" % head.status,), fields), f"{name} reads {read}"
    if head.status != 101 or head.upgrade:
        _check_rebuilt_response(raw)


def _check_rebuilt_response(raw: bytes) -> None:
    own = b"X-Own: 1\r\n"
    for close in (False, True):
        head = parse_response(raw)
        built = rebuild.response_head(head, dropped=CLUSTER_RESPONSE_DROPPED, close=close, own=own)
        then = parse_response(built)
        assert (then.status, then.chunked, then.content_length) == (head.status, head.chunked, head.content_length)
        gone = HOP_BY_HOP | CLUSTER_RESPONSE_DROPPED
        kept = [(lower, value) for lower, value, _ in head.fields if lower not in gone]
        passed = [(lower, value) for lower, value, _ in then.fields if lower not in HOP_BY_HOP]
        assert passed == [*kept, (b"x-own", b"1")]
        assert then.minor == 1
        if head.status != 101:
            assert then.close == close


def _plain(fields: list[Field]) -> tuple[tuple[bytes, bytes], ...]:
    return _lowered(tuple((lower, value) for lower, value, _ in fields))


def _lowered(fields: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
    """h11 gives the coding in lower case, whatever came."""
    return tuple((name, value.lower() if name == b"transfer-encoding" else value) for name, value in fields)


def _facts(head: RequestHead) -> tuple[object, ...]:
    return (
        head.method, head.target, head.minor, head.host, head.fields, head.content_length, head.chunked, head.close, head.upgrade, head.claims,
        head.expects_continue,
    )  # fmt: skip
