"""Heartbeats and the clock: who is there, who fell silent, and when silence means nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.messages import Heartbeat
from services.cluster_controller.liveness import SILENCE_S, WRITE_EVERY_S, Liveness

BEAT = Heartbeat(agent_version="1")


def test_an_agent_is_silent_after_25_seconds_without_a_heartbeat() -> None:
    liveness = Liveness(0)
    liveness.hear("c", BEAT, 100)
    assert liveness.expire(124.9) == []
    assert liveness.heartbeat("c") == BEAT
    assert liveness.expire(125) == ["c"]
    assert liveness.heartbeat("c") is None
    assert liveness.expire(200) == []


def test_nobody_is_silent_before_the_service_has_listened_long_enough() -> None:
    liveness = Liveness(0)
    assert not liveness.knows(24)
    assert liveness.knows(25)
    liveness.hear("c", BEAT, 100)
    liveness.resume(200)
    assert liveness.expire(201) == []
    assert not liveness.knows(224)
    assert liveness.expire(225) == ["c"]


def test_an_unchanged_heartbeat_is_worth_a_write_every_30_seconds() -> None:
    liveness = Liveness(0)
    assert [t for t in range(0, 91, 10) if liveness.hear("c", BEAT, t)] == [0, 30, 60, 90]
    assert WRITE_EVERY_S == 30


def test_a_changed_heartbeat_is_worth_a_write_at_once() -> None:
    liveness = Liveness(0)
    liveness.hear("c", BEAT, 0)
    assert liveness.hear("c", BEAT.model_copy(update={"kubernetes_version": "v2"}), 1)
    assert not liveness.hear("c", BEAT.model_copy(update={"kubernetes_version": "v2"}), 2)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 20)), max_size=60))
def test_alive_are_exactly_those_heard_of_lately(steps: list[tuple[str, float]]) -> None:
    liveness, heard, now = Liveness(-SILENCE_S), {}, 0.0
    for uid, pause in steps:
        now += pause
        liveness.expire(now)
        liveness.hear(uid, BEAT, now)
        heard[uid] = now
        liveness.expire(now)
        assert {u for u in "abc" if liveness.heartbeat(u) is not None} == {
            u for u, at in heard.items() if now - at < SILENCE_S
        }
        assert len(liveness) <= 3
