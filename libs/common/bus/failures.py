"""The bus's own errors, worded once for every implementation."""

from __future__ import annotations

from libs.common import errors


def nobody_serves(subject: str) -> errors.Unavailable:
    """Nobody listens on the subject: the request was certainly not handled."""
    tokens = subject.split(".")
    who = f'the service "{tokens[1]}"' if tokens[0] == "svc" and len(tokens) > 1 else "the service that is needed"
    return errors.Unavailable(f"{who} does not answer right now: try again soon")


def no_answer(subject: str, timeout_s: float) -> errors.Timeout:
    """Nothing came back in time: it may have been handled or not."""
    return errors.Timeout(f'no answer on "{subject}" in {timeout_s:g} s: it may have been done or not')


def not_connected() -> errors.Unavailable:
    """There is no connection, so nothing was sent."""
    return errors.Unavailable("the message bus is not reachable right now: try again soon")


def connection_lost(subject: str) -> errors.Timeout:
    """The connection broke between question and answer: it may have been handled or not."""
    return errors.Timeout(f'the connection was lost before "{subject}" was answered: it may have been done or not')
