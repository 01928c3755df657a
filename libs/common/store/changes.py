"""The watch that lists nothing: what changes from now on, and after any doubt the word that something may have been missed.

For whoever remembers a few of very many entries and reads them on demand (the front door, of tokens). `jetstream` makes these.
"""

from __future__ import annotations

from libs.common.store.base import Entry, Synced
from libs.common.store.watch import Watch


class Changes(Watch):
    """A watch whose consumers begin at the end of the stream. It keeps no keys, so it can't say what vanished: nobody was told that it was there."""

    deliver_policy = "new"

    def _note(self, entry: Entry) -> None:
        self._position = entry.revision

    def _close_listing(self, seen: set[str], upto: int) -> list[Synced]:
        """The consumer stands: whatever was written before it did can be read in the store by now."""
        self._listing += 1
        # `upto` was asked for before the consumer was made: what came between the two is told by nobody.
        self._position = max(upto, self._begin, self._position)
        return [self._sync(self._position)]
