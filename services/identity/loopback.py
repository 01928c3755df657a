"""The answer to a command line in the browser of its own machine (RFC 8252): composed and checked here; `device_logins` keeps it. Pure.

A one-time code travels with the browser to 127.0.0.1 and nowhere else, so who lures a person into letting in what was begun on another machine gets
nothing. It is stored as a hash, bound to the challenge of who began (RFC 7636), and good for a minute.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlencode

from libs.common import errors
from libs.common.observe import log

CODE_LIFETIME_S = 60
PATH = "/callback"
_REFUSED = "this sign-in took too long, or its answer is not the one that was asked for: begin again"


@dataclass(frozen=True, slots=True)
class Answered:
    """What is kept of an answer, and where it takes the browser."""

    kept: dict[str, Any]
    redirect: str


def answer(callback: Mapping[str, Any], decision: Literal["approve", "deny"], now: datetime) -> Answered:
    """The person's decision; `callback` is a `BrowserCallback` as a dict. An approval has a code, a refusal none (RFC 6749 4.1.2)."""
    if decision == "deny":
        return Answered({**callback}, _redirect(callback, error="access_denied"))
    code = secrets.token_urlsafe(32)
    kept = {**callback, "code_hash": _hash(code), "code_until": now.timestamp() + CODE_LIFETIME_S}
    return Answered(kept, _redirect(callback, code=code))


def check(kept: Mapping[str, Any], code: str, code_verifier: str, now: datetime) -> None:
    """Whether this is the code, from who began, in time. Raises Denied without saying what does not fit; the log does."""
    wrong = [
        what
        for what, fits in (
            ("code", hmac.compare_digest(_hash(code), str(kept["code_hash"]))),
            ("verifier", hmac.compare_digest(_challenge(code_verifier), str(kept["code_challenge"]))),
            ("time", now.timestamp() <= float(kept["code_until"])),
        )
        if not fits
    ]
    if wrong:
        log.get("identity").warning("browser_login_refused", wrong=wrong)
        raise errors.Denied(_REFUSED, why="wrong_browser_answer")


def _redirect(callback: Mapping[str, Any], **result: str) -> str:
    """Never an address that somebody gave: a port, and what stands in front of it here."""
    return f"http://127.0.0.1:{int(callback['port'])}{PATH}?{urlencode({**result, 'state': callback['state']})}"


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8")).hexdigest()


def _challenge(code_verifier: str) -> str:
    """S256 (RFC 7636 4.2)."""
    digest = hashlib.sha256(code_verifier.encode("utf-8")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
