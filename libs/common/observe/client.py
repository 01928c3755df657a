"""Who is at the other end of the call that is being worked on: the address that the front door saw, and what the program calls itself.

The gateway says it for each call; it goes along in the headers of messages, and a service that serves finds it here. It is for records alone:
nothing is let in or refused because of it, and who somebody is never travels this way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

ADDRESS_HEADER, AGENT_HEADER = "Herdsman-Client-Address", "Herdsman-Client-Agent"
MAX_ADDRESS, MAX_AGENT = 64, 256


@dataclass(frozen=True, slots=True)
class Client:
    """Printable ASCII, bounded; empty = nobody outside asked."""

    address: str = ""
    agent: str = ""

    def headers(self) -> dict[str, str]:
        found = {ADDRESS_HEADER: self.address, AGENT_HEADER: self.agent}
        return {name: value for name, value in found.items() if value}


NOBODY = Client()
_current: ContextVar[Client] = ContextVar("client", default=NOBODY)


def make(address: str, agent: str) -> Client:
    """From what came: cut, and without anything that a header or a terminal would take for more than text."""
    return Client(_plain(address, MAX_ADDRESS), _plain(agent, MAX_AGENT))


def parse(headers: Mapping[str, str]) -> Client:
    """The client that a message names."""
    address, agent = headers.get(ADDRESS_HEADER, ""), headers.get(AGENT_HEADER, "")
    return make(address, agent) if address or agent else NOBODY


def current() -> Client:
    return _current.get()


def enter(client: Client) -> None:
    """From now on in this task and in what it starts."""
    _current.set(client)


@contextmanager
def entered(client: Client) -> Iterator[None]:
    reset = _current.set(client)
    try:
        yield
    finally:
        _current.reset(reset)


def _plain(text: str, most: int) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in text[:most]).strip()
