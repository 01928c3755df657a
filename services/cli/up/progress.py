"""What the terminal shows while things take time: a moving line where a person watches, plain lines elsewhere. On stderr.

rich is imported only on a terminal. A step that takes less than a second leaves no trace, except those told with `say`.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

from services.cli.output import has_colour

if TYPE_CHECKING:
    from rich.status import Status

_QUIET_S = 1.0
_REPEAT_S = 5.0


class Progress:
    """One for the whole run; call it from the event loop."""

    def __init__(self, *, terminal: bool | None = None) -> None:
        self._terminal = sys.stderr.isatty() if terminal is None else terminal
        self._status: Status | None = None
        self._began: dict[str, float] = {}
        self._printed: dict[str, float] = {}

    def say(self, text: str) -> None:
        """One lasting line. Never raises: output that goes to a full disk must not end what keeps the hub alive."""
        self._pause_line()
        with contextlib.suppress(OSError):  # it stays in the stream's buffer, and comes out with the next line that can
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def busy(self, key: str, text: str) -> None:
        """Something goes on; call it as often as you like. It shows after a second, and then now and again."""
        now = time.monotonic()
        began = self._began.setdefault(key, now)
        elapsed = now - began
        if elapsed < _QUIET_S:
            return
        if self._terminal:
            self._show_line(f"{text} ({elapsed:.0f} s)")
        elif now - self._printed.get(key, 0.0) >= _REPEAT_S:
            self._printed[key] = now
            self.say(f"{text} ({elapsed:.0f} s)")

    def done(self, key: str, text: str = "") -> None:
        """It is over; `text` is a lasting line for what took more than a second."""
        began = self._began.pop(key, None)
        self._printed.pop(key, None)
        if not self._began:
            self._pause_line()
        if text and began is not None and time.monotonic() - began >= _QUIET_S:
            self.say(f"{text} ({time.monotonic() - began:.1f} s)")

    def close(self) -> None:
        self._pause_line()

    def _show_line(self, text: str) -> None:
        if self._status is None:
            from rich.console import Console

            console = Console(stderr=True, no_color=not has_colour(True))
            self._status = console.status("", spinner="dots")
            self._status.start()
        from rich.markup import escape

        self._status.update(escape(text))

    def _pause_line(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
