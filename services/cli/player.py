"""Playing a recorded session in this terminal: with its timing, its colours, and nothing that a program must not do to a viewer."""

from __future__ import annotations

import contextlib
import select
import sys
import time
from collections.abc import Iterable, Iterator

from libs.common.recording.events import OUTPUTS
from libs.common.recording.screen import RESTORE, Screen
from services.cli.recording import Event

_SLICE_S = 0.5


def play(events: Iterable[Event], *, speed: float, max_idle_s: float | None, timing: bool) -> None:
    """Write the outputs to stdout. Raises KeyboardInterrupt on Ctrl-C; the terminal is as before, whatever happens."""
    screens = {channel: Screen() for channel in OUTPUTS}
    with _terminal():
        before = 0.0
        for at_s, channel, data in events:
            screen = screens.get(channel)
            if screen is None:
                continue
            wait_s = at_s - before
            before = at_s
            if timing and wait_s > 0:
                _wait((min(wait_s, max_idle_s) if max_idle_s is not None else wait_s) / speed)
            sys.stdout.write(screen.feed(data))
            sys.stdout.flush()


def _wait(seconds: float) -> None:
    """Sleep; what is typed meanwhile is thrown away."""
    until = time.monotonic() + seconds
    typing = [sys.stdin] if sys.stdin.isatty() else []
    while (left := until - time.monotonic()) > 0:
        # In slices: a Ctrl-C that comes in the instant before the call does not interrupt it, and is seen after it.
        ready, _, _ = select.select(typing, [], [], min(left, _SLICE_S))
        if ready:
            _discard_input()


@contextlib.contextmanager
def _terminal() -> Iterator[None]:
    """No echo of what is typed while it plays; afterwards everything as before, and nothing waiting to be read as a command."""
    if not sys.stdin.isatty():
        try:
            yield
        finally:
            _restore_screen()
        return
    import termios

    stdin = sys.stdin.fileno()
    saved = termios.tcgetattr(stdin)
    quiet = termios.tcgetattr(stdin)
    quiet[3] &= ~(termios.ECHO | termios.ICANON)  # Ctrl-C goes on to interrupt
    termios.tcsetattr(stdin, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        _restore_screen()
        termios.tcsetattr(stdin, termios.TCSAFLUSH, saved)


def _restore_screen() -> None:
    if sys.stdout.isatty():
        sys.stdout.write(RESTORE + "\r\n")
        sys.stdout.flush()


def _discard_input() -> None:
    import termios

    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
