"""The double of a journal keeps the promises; and times of the server are read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from libs.common.bus.journal import MemoryJournal, parse_stored_at
from tests.bus.journal_conformance import JournalConformance


class TestMemory(JournalConformance):
    @pytest.fixture
    def journal(self) -> MemoryJournal:
        return MemoryJournal()

    @pytest.fixture
    def subject(self):
        return lambda word: f"j.{word}"


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [("2026-01-02T03:04:05.123456789Z", 123456), ("2026-01-02T03:04:05.5Z", 500000), ("2026-01-02T03:04:05Z", 0)],
)
def test_the_servers_times_are_read(text, microsecond):
    assert parse_stored_at(text) == datetime(2026, 1, 2, 3, 4, 5, microsecond, UTC)
