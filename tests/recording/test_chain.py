"""What was written is what is read; anything else is noticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import errors
from libs.common.recording.chain import PURPOSE, Broken, peek_outcome
from libs.common.recording.events import STDERR, STDOUT, Event
from tests.recording.made import KEY, OTHER, SIGNER, VERIFIER, open_all, outcome, seal

EVENTS = st.lists(
    st.lists(st.builds(Event, st.integers(0, 10**7), st.integers(0, 4), st.binary(max_size=50)), max_size=4), max_size=4
)
PARTS = [[Event(1, STDOUT, b"one")], [Event(2, STDOUT, b"two"), Event(2, STDERR, b"!")], [Event(9, STDOUT, b"three")]]


@given(EVENTS)
def test_a_recording_is_read_as_it_was_written(parts):
    opener, events = open_all(seal(parts))
    assert events == [event for part in parts for event in part]
    assert opener.facts is not None
    assert opener.facts.user == "ada"
    assert opener.outcome == outcome()


@given(st.data())
def test_a_changed_byte_is_noticed(data):
    messages = seal(PARTS)
    number = data.draw(st.integers(0, len(messages) - 1))
    at = data.draw(st.integers(0, len(messages[number]) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(messages[number])
    changed[at] ^= 1 << bit
    messages[number] = bytes(changed)
    with pytest.raises(Broken):
        open_all(messages)


@given(st.permutations(range(5)))
def test_another_order_is_noticed(order):
    messages = seal(PARTS)
    if order == sorted(order):
        open_all(messages)
        return
    with pytest.raises(Broken):
        open_all([messages[n] for n in order])


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_a_missing_message_is_noticed(missing):
    messages = seal(PARTS)
    del messages[missing]
    with pytest.raises(Broken):
        open_all(messages)


def test_a_message_twice_is_noticed():
    messages = seal(PARTS)
    with pytest.raises(Broken):
        open_all([*messages[:2], messages[1], *messages[2:]])


def test_a_recording_without_its_end_is_unfinished_and_genuine():
    opener, events = open_all(seal(PARTS)[:-1])
    assert opener.outcome is None
    assert len(events) == 4


def test_a_message_behind_the_end_is_noticed():
    messages = seal(PARTS)
    with pytest.raises(Broken):
        open_all([*messages, messages[-1]])


def test_a_part_of_another_session_is_noticed():
    other = seal(PARTS, pod="other")
    with pytest.raises(Broken):
        open_all([*seal(PARTS)[:1], *other[1:]])


def test_a_whole_other_session_under_this_name_is_noticed():
    with pytest.raises(Broken):
        open_all(seal(PARTS, id="20260301t120000-00000002"))


def test_another_keys_recording_is_noticed():
    with pytest.raises(Broken):
        open_all(seal(PARTS, signer=OTHER))


def test_an_end_is_peeked_at_only_when_it_is_genuine():
    messages = seal(PARTS)
    assert peek_outcome(messages[-1], VERIFIER) == outcome()
    assert peek_outcome(messages[0], VERIFIER) is None
    assert peek_outcome(messages[1], VERIFIER) is None
    assert peek_outcome(seal([], signer=OTHER)[-1], VERIFIER) is None
    assert peek_outcome(b"", VERIFIER) is None


@given(st.binary(max_size=200))
def test_signed_garbage_is_broken_and_no_bug(body):
    with pytest.raises(Broken):
        open_all([SIGNER.sign(PURPOSE, body) + body])


def test_a_signature_of_a_recording_is_no_envelope():
    import base64

    def b64(data):
        return base64.urlsafe_b64encode(data).decode()

    payload = PURPOSE + b"body"
    with pytest.raises(errors.Unauthenticated):
        VERIFIER.open(f"{b64(payload)}.{b64(KEY.sign(payload))}")
