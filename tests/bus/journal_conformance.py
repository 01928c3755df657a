"""The promises of a journal, for the double and for JetStream alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from libs.common.bus.jetstream_api import WrongSequence
from libs.common.bus.journal import Journal


class JournalConformance:
    """Subclass with a fixture `journal`, empty, and a fixture `subject`: a function from a word to a subject of the stream."""

    async def test_messages_are_read_in_the_order_in_which_they_were_stored(self, journal: Journal, subject) -> None:
        await journal.ensure()
        first = await journal.append(subject("a"), b"1", after=0)
        second = await journal.append(subject("b"), b"2", after=0)
        third = await journal.append(subject("a"), b"3", after=first)
        assert first < second < third
        found, sequence = [], 0
        while (entry := await journal.next(sequence)) is not None:
            found.append((entry.sequence, entry.subject, entry.data))
            assert abs(datetime.now(UTC) - entry.stored_at) < timedelta(minutes=5)
            sequence = entry.sequence + 1
        assert found == [(first, subject("a"), b"1"), (second, subject("b"), b"2"), (third, subject("a"), b"3")]
        assert await journal.bounds() == (first, third)

    async def test_a_message_that_does_not_follow_is_not_stored_and_the_last_is_told(
        self, journal: Journal, subject
    ) -> None:
        await journal.ensure()
        first = await journal.append(subject("a"), b"1", after=0)
        for after in (0, first + 7):
            with pytest.raises(WrongSequence) as refused:
                await journal.append(subject("a"), b"2", after=after)
            assert refused.value.last == first
        with pytest.raises(WrongSequence) as refused:
            await journal.append(subject("new"), b"2", after=5)
        assert refused.value.last == 0
        assert await journal.bounds() == (first, first)

    async def test_an_empty_journal_says_so(self, journal: Journal) -> None:
        await journal.ensure()
        await journal.ensure()
        first, last = await journal.bounds()
        assert last == first - 1 or (first, last) == (0, 0)
        assert await journal.next(1) is None
