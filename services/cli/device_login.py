"""`herdsman login --device`: for a machine without a browser. Shows a code, waits until a person who is signed in elsewhere lets it in."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from libs.common import errors
from services.cli.hub import Document, Hub

_LIFETIME_S = 600


def sign_in(
    hub: Hub,
    tell: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Document:
    """The hub's answer with the token. Raises Timeout when nobody answered in time, Denied when it was refused."""
    begun = hub.post("/v1/devices", {"description": describe()})
    interval_s = max(1.0, float(begun.get("interval_s") or 5))
    tell(f"open {begun['verification_uri']} in a browser, on any machine, and give the code {begun['user_code']}")
    tell("only do so yourself: who gives it lets this machine in as that person")
    ends = monotonic() + _LIFETIME_S
    sleep(interval_s)
    fetched = fetch(hub, {"device_code": begun["device_code"]}, interval_s, ends, sleep=sleep, monotonic=monotonic)
    if fetched is None:
        raise errors.Timeout("nobody let this machine in within ten minutes: begin again")
    return fetched


def fetch(
    hub: Hub,
    body: Document,
    interval_s: float,
    ends: float,
    *,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Document | None:
    """The answer with the token, asked for again and again until the clock says `ends`. Raises NotFound when its time is over, Denied."""
    while True:
        try:
            fetched = hub.post("/v1/devices/fetch", body)
        except (errors.Unavailable, errors.TooManyRequests):
            interval_s = min(30.0, interval_s * 1.5)
        else:
            if fetched.get("token"):
                return fetched
        if monotonic() + interval_s >= ends:
            return None
        sleep(interval_s)


def describe() -> str:
    """What the person is shown, and the token is called."""
    return f"herdsman on {socket.gethostname()}"[:256]
