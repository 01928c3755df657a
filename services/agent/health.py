"""Whether the agent lives and whether it is of use, for the probes of its pod: /healthz and /readyz on `--health-listen`.

Over HTTP, because a command started by an exec probe would cost a second interpreter's memory each time. Both answers come from
the event loop, so one that is blocked fails the probe by its silence.

Alive: the loop answers, and whatever must go on does: the heartbeat's loop turns, and the link to the hub has just proved itself by
a round trip or is honestly trying again. A hub that is away does not kill the agent: a restart would not bring it back, and
meanwhile the last desired set must stay enforced. What kills it is a loop that has stopped without ending its task.

Ready: registered, and at least one reverse connection is open, so that the hub can reach the cluster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from libs.common.observe import probes

PATIENCE_S = 60.0


class Health:
    """Those who must go on call `turn` each time they do; who has not within its patience is reported."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._due: dict[str, float] = {}
        self._tunnels: Callable[[], int] | None = None

    def turn(self, name: str, patience_s: float = PATIENCE_S) -> None:
        """`name` goes on, and will say so again within `patience_s`."""
        self._due[name] = self._monotonic() + patience_s

    def registered(self, tunnels: Callable[[], int]) -> None:
        """There is an identity in use; `tunnels` says how many reverse connections are open."""
        self._tunnels = tunnels

    def unregistered(self) -> None:
        """The identity is given up, and with it what ran under it: only the link to the hub is still expected to go on."""
        self._tunnels = None
        self._due = {"hub": self._monotonic() + PATIENCE_S}

    def stuck(self) -> list[str]:
        """What has stopped, for people; empty = alive."""
        now = self._monotonic()
        return [f"{name}, silent for too long" for name, due in sorted(self._due.items()) if now > due]

    def missing(self) -> list[str]:
        """What is missing before the agent is of use; empty = ready."""
        if self._tunnels is None:
            return ["registration"]
        return [] if self._tunnels() > 0 else ["a reverse connection to the hub"]

    def answers(self) -> Mapping[str, probes.Answer]:
        """The table for `probes.serve`."""
        return {"/healthz": lambda: probes.verdict(self.stuck()), "/readyz": lambda: probes.verdict(self.missing())}
