"""What reaches the event loop's handler is told as what it is."""

from __future__ import annotations

import asyncio
import ssl

import pytest
import structlog

from libs.common.runtime import loop


@pytest.mark.parametrize(
    ("message", "error", "level"),
    [
        ("Fatal error on SSL protocol", RuntimeError("the handler is closed"), "debug"),
        ("Fatal error on SSL protocol", ConnectionResetError(), "debug"),
        ("SSL handshake failed", ssl.SSLError(1, "x"), "debug"),
        ("Fatal error on SSL protocol", KeyError("ours"), "error"),
        ("Task was destroyed but it is pending!", None, "error"),
        ("Exception in callback", OSError("ours"), "error"),
    ],
)
async def test_a_client_that_hangs_up_is_no_error_and_a_bug_is_one(message, error, level):
    with structlog.testing.capture_logs() as logs:
        loop.report(asyncio.get_running_loop(), {"message": message, "exception": error})
    assert [entry["log_level"] for entry in logs] == [level]
