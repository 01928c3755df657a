"""Listening sockets that came from the parent, by systemd's convention (sd_listen_fds(3)): LISTEN_FDS of them from descriptor 3 on.

The parent (`workers`) keeps its own copy of each, so that whoever takes over this process's place takes over the very same socket with
whatever waits in its queue.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

FIRST = 3
COUNT, PID, NUMBER = "LISTEN_FDS", "LISTEN_PID", "HERDSMAN_WORKER"


def is_worker(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody gave sockets to this very process, and not to one that it descends from."""
    return environment.get(PID) == str(os.getpid()) and environment.get(COUNT, "").isdecimal()


def take_sockets() -> list[socket.socket]:
    """The sockets, none when there are none. They are this process's own from now on: no child gets them."""
    if not is_worker():
        return []
    count = int(os.environ.pop(COUNT))
    os.environ.pop(PID)
    sockets = [socket.socket(fileno=FIRST + index) for index in range(count)]
    for sock in sockets:
        sock.set_inheritable(False)
        sock.setblocking(False)
    return sockets
