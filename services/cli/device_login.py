"""`herdsman login --device`: for a machine without a browser. Shows a code, waits until a person who is signed in elsewhere lets it in."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from libs.common import errors
from services.cli.hub import Document, Hub


def sign_in(
    hub: Hub,
    tell: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Document:
    """The hub's answer with the token. Raises NotFound when nobody answered in time, Denied when it was refused."""
    begun = hub.post("/v1/devices", {"description": f"herdsman on {socket.gethostname()}"[:256]})
    interval_s = max(1.0, float(begun.get("interval_s") or 5))
    tell(f"open {begun['verification_uri']} in a browser, on any machine, and give the code {begun['user_code']}")
    tell("only do so yourself: who gives it lets this machine in as that person")
    ends = monotonic() + 600
    while monotonic() < ends:
        sleep(interval_s)
        try:
            fetched = hub.post("/v1/devices/fetch", {"device_code": begun["device_code"]})
        except (errors.Unavailable, errors.TooManyRequests):
            interval_s = min(30.0, interval_s * 1.5)
            continue
        if fetched.get("token"):
            return fetched
    raise errors.Timeout("nobody let this machine in within ten minutes: begin again")
