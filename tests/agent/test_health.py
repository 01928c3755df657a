"""When the agent's pod is restarted, and when the hub may count on it."""

from __future__ import annotations

import pytest

from services.agent.health import PATIENCE_S, Health


class Seconds:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Seconds()


@pytest.fixture
def health(time):
    return Health(time)


def statuses(health):
    answers = health.answers()
    return answers["/healthz"]().status, answers["/readyz"]().status


def test_a_fresh_agent_is_alive_and_not_ready(health):
    assert statuses(health) == (200, 503)
    assert health.missing() == ["registration"]


def test_ready_needs_a_reverse_connection(health):
    open_tunnels = 0
    health.registered(lambda: open_tunnels)
    assert health.missing() == ["a reverse connection to the hub"]
    open_tunnels = 1
    assert statuses(health) == (200, 200)


def test_an_agent_that_keeps_trying_to_reach_its_hub_lives(health, time):
    for _ in range(100):
        health.turn("hub")
        time.now += PATIENCE_S
        assert health.stuck() == []


def test_an_agent_whose_link_has_stopped_trying_is_dead_and_says_why(health, time):
    health.turn("hub")
    health.turn("heartbeat")
    time.now += PATIENCE_S / 2
    health.turn("heartbeat")
    time.now += PATIENCE_S / 2 + 1
    assert health.stuck() == ["hub, silent for too long"]
    assert statuses(health)[0] == 503


def test_what_said_how_long_it_pauses_is_given_that_time(health, time):
    health.turn("hub", 300)
    time.now += 299
    assert health.stuck() == []


def test_another_registration_begins_anew(health, time):
    health.registered(lambda: 4)
    health.turn("heartbeat")
    health.unregistered()
    time.now += PATIENCE_S - 1
    assert health.stuck() == []
    assert health.missing() == ["registration"]
