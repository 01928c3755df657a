"""`herdsman login` in this machine's browser (RFC 8252): opens the hub's page, and waits until the browser brings a code back to 127.0.0.1.

The code is worth something only together with the verifier that stays here (RFC 7636) and the secret that the hub gave at the beginning.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Mapping

from libs.common import errors
from services.cli import callback
from services.cli.device_login import describe, fetch
from services.cli.hub import Document, Hub

TIMEOUT_S = 300.0
_FETCH_S = 15.0


def has_browser(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> bool:
    """Whether a browser can be expected to open where the person sits: not over SSH, and not without a display."""
    if environ.get("SSH_CONNECTION") or environ.get("SSH_TTY"):
        return False
    return platform in ("darwin", "win32") or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def sign_in(
    hub: Hub,
    tell: Callable[[str], None],
    *,
    open_page: Callable[[str], bool] = webbrowser.open,
    timeout_s: float = TIMEOUT_S,
) -> Document:
    """The hub's answer with the token. Raises Timeout when nothing came back in time, Denied when it was refused."""
    verifier = secrets.token_urlsafe(48)
    with callback.listening() as listener:
        asked = {"port": listener.port, "state": listener.state, "code_challenge": make_challenge(verifier)}
        begun = hub.post("/v1/devices", {"description": describe(), "browser": asked})
        page = _checked(str(begun.get("verification_uri", "")))
        tell("opening your browser to sign in; if it does not open, go to this address in a browser on this machine:")
        tell(f"  {page}")
        tell(f"it shows the code {begun['user_code']}: refuse if it shows another one")
        _open(open_page, page, tell)
        # Not kept meanwhile: the hub would close it while the person thinks.
        hub.close()
        code = listener.wait(timeout_s)
        body = {"device_code": begun["device_code"], "code": code, "code_verifier": verifier}
        # Usually the first answer has it; another replica may hear of the person's answer a moment later.
        fetched = fetch(hub, body, 0.3, time.monotonic() + _FETCH_S)
    if fetched is None:
        raise errors.Timeout("the hub did not give the sign-in that was confirmed: begin again")
    return fetched


def make_challenge(verifier: str) -> str:
    """S256 (RFC 7636 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _checked(page: str) -> str:
    """An address that a browser may be given. Raises Unavailable."""
    if not page.startswith("https://") or not page.isascii() or not page.isprintable() or " " in page:
        raise errors.Unavailable("the hub gave no address to sign in at: check that it is a Herdsman hub")
    if "#login=" not in page:
        raise errors.Unavailable(
            "this hub is older and does not know this way: sign in with --device, or with --user NAME"
        )
    return page


def _open(open_page: Callable[[str], bool], page: str, tell: Callable[[str], None]) -> None:
    """Beside what waits: some browsers that BROWSER names keep their caller until they are closed."""

    def work() -> None:
        try:
            opened = open_page(page)
        except (webbrowser.Error, OSError):
            opened = False
        if not opened:
            tell("no browser could be opened: go to the address yourself")

    threading.Thread(target=work, name="open browser", daemon=True).start()
