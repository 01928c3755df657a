"""Answers of an API server and exceptions of the HTTP client become families of `libs.common.errors`. Used by `client` alone."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp

from libs.common import errors

_BY_REASON: Mapping[str, type[errors.HerdsmanError]] = {
    "BadRequest": errors.BadRequest,
    "Unauthorized": errors.Unauthenticated,
    "Forbidden": errors.Denied,
    "NotFound": errors.NotFound,
    "MethodNotAllowed": errors.MethodNotAllowed,
    "NotAcceptable": errors.NotAcceptable,
    "AlreadyExists": errors.AlreadyExists,
    "Conflict": errors.Conflict,
    "Gone": errors.Expired,
    "Expired": errors.Expired,
    "RequestEntityTooLarge": errors.TooLarge,
    "UnsupportedMediaType": errors.UnsupportedMediaType,
    "Invalid": errors.Invalid,
    "TooManyRequests": errors.TooManyRequests,
    "InternalError": errors.Unavailable,
    "ServiceUnavailable": errors.Unavailable,
    "ServerTimeout": errors.Timeout,
    "Timeout": errors.Timeout,
}
_BY_CODE: Mapping[int, type[errors.HerdsmanError]] = {
    400: errors.BadRequest, 401: errors.Unauthenticated, 403: errors.Denied, 404: errors.NotFound,
    405: errors.MethodNotAllowed, 406: errors.NotAcceptable, 409: errors.Conflict, 410: errors.Expired,
    413: errors.TooLarge, 415: errors.UnsupportedMediaType, 422: errors.Invalid, 429: errors.TooManyRequests,
    500: errors.Unavailable, 502: errors.Unavailable, 503: errors.Unavailable, 504: errors.Timeout,
}  # fmt: skip


def error_of_status(document: Mapping[str, Any], doing: str) -> errors.HerdsmanError:
    """The error that a `Status` object describes; `doing` completes "cannot …"."""
    code = int(document.get("code") or 500)
    family = _BY_REASON.get(str(document.get("reason") or ""), _BY_CODE.get(code, errors.Unavailable))
    details = document.get("details") or {}
    causes = [
        errors.Cause(str(c.get("field", "")), str(c.get("message", "")), str(c.get("reason", "")))
        for c in details.get("causes") or ()
    ]
    return family(
        f"cannot {doing}: {_one_line(str(document.get('message') or f'HTTP status {code}'))}",
        kind=str(details.get("kind") or ""),
        name=str(details.get("name") or ""),
        causes=causes,
        retry_after_s=details.get("retryAfterSeconds"),
    )


def error_of_answer(code: int, body: bytes, retry_after: str, doing: str) -> errors.HerdsmanError:
    """The error of an answer with a failure code; not all of them come from the API server itself (balancers)."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("kind") != "Status":
        text = body[:200].decode("utf-8", "replace") if body else "no text"
        document = {"code": code, "message": f"HTTP status {code}: {text}"}
    error = error_of_status({**document, "code": code}, doing)
    if retry_after.isdigit():
        error.retry_after_s = int(retry_after)
    return error


def error_of_exception(exc: BaseException, url: str, doing: str) -> errors.HerdsmanError:
    """The error of a request that got no answer."""
    if isinstance(exc, TimeoutError):
        return errors.Timeout(f"cannot {doing}: the API server at {url} did not answer in time")
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        why = _certificate_problem(exc.certificate_error)
        return errors.Unavailable(f"cannot {doing}: the certificate of the API server at {url} is not trusted: {why}")
    if isinstance(exc, aiohttp.ClientConnectorError):
        return errors.Unavailable(
            f"cannot {doing}: cannot connect to the API server at {url}: {_one_line(str(exc.os_error))}"
        )
    return errors.Unavailable(
        f"cannot {doing}: the connection to the API server at {url} broke: {_one_line(str(exc)) or type(exc).__name__}"
    )


def _certificate_problem(exc: Exception) -> str:
    return exc.verify_message if isinstance(exc, ssl.SSLCertVerificationError) else _one_line(str(exc))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:1000]
