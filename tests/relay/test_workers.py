"""When an agent gives up a process of the hub: silence counts only where a ping was due."""

from __future__ import annotations

from libs.common.relay import tunnel
from libs.common.relay.workers import Workers

LONG = tunnel.WORKER_SILENCE_S + 1


class Transport:
    def __init__(self) -> None:
        self.aborted = False

    def get_extra_info(self, _name: str) -> None:
        """No socket: the kernel says nothing."""

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


class Connection:
    def __init__(self) -> None:
        self.transport = Transport()


def test_a_silent_process_with_a_resting_connection_loses_all_it_has():
    workers, resting, stream = Workers(), Connection(), Connection()
    for connection in (resting, stream):
        workers.add(connection, "a", 0.0)
    assert workers.cut_silent(LONG, {resting: 0.0}) == 2
    assert stream.transport.aborted


def test_a_process_that_has_nothing_but_quiet_streams_here_is_spared():
    workers, stream = Workers(), Connection()
    workers.add(stream, "drains", 0.0)
    assert workers.cut_silent(LONG, {}) == 0
    assert not stream.transport.aborted


def test_a_connection_that_came_to_rest_just_now_was_not_due_for_a_ping():
    workers, resting = Workers(), Connection()
    workers.add(resting, "a", 0.0)
    assert workers.cut_silent(LONG, {resting: LONG - 1}) == 0


def test_the_silence_of_one_process_costs_another_nothing():
    workers, gone, well = Workers(), Connection(), Connection()
    workers.add(gone, "gone", 0.0)
    workers.add(well, "well", 0.0)
    workers.heard(well, LONG - 1)
    assert workers.cut_silent(LONG, {gone: 0.0, well: 0.0}) == 1
    assert not well.transport.aborted
