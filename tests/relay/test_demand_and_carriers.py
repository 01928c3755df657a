"""How many connections an agent keeps ready, and by which carrier it tries first. Values only."""

from __future__ import annotations

import itertools

from libs.common.relay.demand import MOST, PERIOD_S, Demand
from libs.common.relay.handshake import PLAIN, WEBSOCKET
from libs.common.relay.outbound import Hub
from libs.common.relay.reach import PLAIN_AGAIN_MAX_S, PLAIN_AGAIN_S, Carriers

HUB = Hub("https://hub.example.org")


def test_as_many_are_dialled_at_once_as_wait_and_as_should_rest():
    demand = Demand(4, 256, 0.0)
    assert demand.missing(resting=0, connected=0, dialling=0) == 4
    demand.told(46)
    assert demand.missing(resting=1, connected=5, dialling=3) == 50 + 46 - 1 - 3
    demand.told(0)
    assert demand.missing(resting=50, connected=100, dialling=0) == 0


def test_cap_bounds_what_is_dialled():
    demand = Demand(4, 10, 0.0)
    demand.told(1_000_000)
    assert demand.missing(resting=0, connected=8, dialling=1) == 1


def test_target_remembers_a_burst_and_gives_it_up_slowly_never_below_the_least():
    demand = Demand(4, 256, 0.0)
    for waiting in (30, 29, 28):
        demand.told(waiting)
    assert demand.target == 34
    demand.look(34, 1.0)
    targets = []
    now = PERIOD_S
    for _ in range(12):
        demand.look(demand.target, now)
        targets.append(demand.target)
        now += PERIOD_S
    assert targets[-1] == 4
    assert all(a >= b >= a * 3 // 4 - 1 for a, b in itertools.pairwise(targets))


def test_what_is_needed_again_and_again_is_kept():
    demand = Demand(4, 256, 0.0)
    demand.told(36)
    demand.look(0, 1.0)
    demand.look(demand.target, PERIOD_S)
    assert demand.target == 40
    demand.look(3, PERIOD_S + 1)
    demand.look(40, 2 * PERIOD_S)
    assert demand.target == 37


def test_target_has_an_upper_bound():
    demand = Demand(4, 2560, 0.0)
    demand.told(2000)
    assert demand.target == MOST


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_plain_carrier_is_tried_first_and_the_one_that_worked_last_from_then_on():
    clock = Clock()
    carriers = Carriers(clock)
    assert carriers.order() == (PLAIN, WEBSOCKET)
    carriers.worked(WEBSOCKET, HUB)
    assert carriers.order() == (WEBSOCKET, PLAIN)
    clock.now = PLAIN_AGAIN_S * 1.3
    assert carriers.order() == (PLAIN, WEBSOCKET)
    # One connection tries; those that are dialled beside it don't.
    assert carriers.order() == (WEBSOCKET, PLAIN)
    carriers.worked(WEBSOCKET, HUB)
    clock.now += PLAIN_AGAIN_S * 1.3
    assert carriers.order() == (WEBSOCKET, PLAIN)
    clock.now += PLAIN_AGAIN_MAX_S
    assert carriers.order() == (PLAIN, WEBSOCKET)
    carriers.worked(PLAIN, HUB)
    assert carriers.order() == (PLAIN, WEBSOCKET)
    assert carriers.last_good == PLAIN


def test_a_carrier_that_worked_is_not_given_up_for_a_silence_of_the_network():
    carriers = Carriers(lambda: 0.0)
    assert not carriers.forgives(PLAIN)
    carriers.worked(PLAIN, Hub("https://hub"))
    assert [carriers.forgives(PLAIN) for _ in range(3)] == [True, True, False]
    carriers.worked(PLAIN, Hub("https://hub"))
    assert carriers.forgives(PLAIN)
    assert not carriers.forgives(WEBSOCKET)
