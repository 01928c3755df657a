"""Hooks for conftest files: a run behaves the same wherever it was started from, and always comes to an end.

pytest-timeout stops its clock at a test's first failure, so that one which failed and left a server behind would hang for ever: it is ended,
with what failed before and where it stands.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

LIMIT_S = 120.0
"""Far beyond any fixture's end, the deletion of a whole cluster included."""
_failures: list[str] = []


def pytest_configure() -> None:
    """A shell that starts us in the background has SIGINT ignored, and our children would inherit that: Ctrl-C is part of what is tested."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    timer = threading.Timer(LIMIT_S, _give_up, [item])
    timer.daemon = True
    timer.start()
    try:
        return (yield)
    finally:
        timer.cancel()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        sections = "".join(f"\n--- {title} ---\n{text}" for title, text in report.sections)
        _failures.append(f"{report.nodeid} ({report.when})\n{report.longreprtext}{sections}\n")


def _give_up(item: pytest.Item) -> None:
    """End the process as a crash would: nothing that hangs can be asked to stop."""
    capture = item.config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    sys.stderr.write(
        f"\n{item.nodeid} is still being taken down after {LIMIT_S:.0f} s; failed so far: {len(_failures)}\n"
    )
    sys.stderr.write("\n".join(_failures))
    sys.stderr.flush()
    faulthandler.dump_traceback(all_threads=True)
    os._exit(1)
