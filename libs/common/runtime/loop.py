"""What the event loop itself has to say, in the form of our logs.

uvloop reports a client that hangs up in the middle of a TLS write as a fatal error with a stack trace, for each such connection. That
is everyday life of a front door and nobody's fault; everything else that reaches the loop's handler is a bug of ours.
"""

from __future__ import annotations

import asyncio
from typing import Any

from libs.common.observe import log

logger = log.get("loop")
_OF_A_CONNECTION = (
    "Fatal error on SSL protocol",
    "Fatal error on transport",
    "SSL handshake failed",
    "SSL error in data received",
)


def report(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The loop's exception handler: broken connections at `debug`, the rest as errors."""
    message = str(context.get("message", ""))
    error = context.get("exception")
    # RuntimeError: uvloop's "the handler is closed", for a write to what the far side has closed meanwhile.
    if message.startswith(_OF_A_CONNECTION) and isinstance(error, (OSError, RuntimeError)):
        logger.debug("connection_broke", reason=message, error=str(error))
        return
    logger.error("loop_failed", reason=message, error=str(error or ""), exc_info=error)
