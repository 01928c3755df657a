"""The engine's own answers: errors as Kubernetes `Status` objects, and small plain ones, as ready bytes. Pure."""

from __future__ import annotations

import json
from http import HTTPStatus

from libs.common import errors


class BadGateway(errors.Unavailable):
    """The far side answered with something that is no clean HTTP/1.1, or went away in the middle."""

    http_status = 502
    reason = "InternalError"


class RequestTimeout(errors.BadRequest):
    """The client did not finish its request in time."""

    http_status = 408
    reason = "Timeout"


class HeadTooLarge(errors.BadRequest):
    http_status = 431
    reason = "RequestHeaderFieldsTooLarge"


class NotHere(errors.Unavailable):
    """An internal hop has no connection of the cluster and has done nothing: another may have one."""


NOT_HERE = b"Herdsman-Not-Here: 1"
"""Marks that answer, between processes of the hub alone."""


def render(
    status: int, content_type: bytes, body: bytes, *, headers: tuple[bytes, ...] = (), close: bool, bodiless: bool
) -> bytes:
    """One complete response. `bodiless`: answer to HEAD, which has the length but not the bytes."""
    lines = [b"HTTP/1.1 %d %s" % (status, _phrase(status))]
    if status != 204:
        lines += [b"Content-Type: " + content_type, b"Content-Length: %d" % len(body)]
    lines += [b"Cache-Control: no-store", *headers]
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if bodiless or status == 204 else body)


def render_error(error: errors.HerdsmanError, *, close: bool, bodiless: bool = False) -> bytes:
    """An error as a `Status` response; Retry-After only where the error asks for it."""
    headers: tuple[bytes, ...] = ()
    if error.retry_after_s is not None:
        headers += (b"Retry-After: %d" % error.retry_after_s,)
    if isinstance(error, NotHere):
        headers += (NOT_HERE,)
    if isinstance(error, errors.Unauthenticated):
        headers += (b'WWW-Authenticate: Bearer realm="herdsman"',)
    body = json.dumps(error.to_status()).encode() + b"\n"
    return render(error.http_status, b"application/json", body, headers=headers, close=close, bodiless=bodiless)


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"
