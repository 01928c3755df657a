"""The passwords that everybody tries first: the 30,000 most common ones of the zxcvbn lists. Used by `passwords.check_policy`.

`zxcvbn` is imported here alone, and only its list is kept. Nothing is asked of any network.
"""

from __future__ import annotations

import unicodedata

from zxcvbn.frequency_lists import FREQUENCY_LISTS

_COMMON = frozenset(FREQUENCY_LISTS["passwords"])


def is_common(password: str) -> bool:
    """Whether it is one of the list, whatever its case, written several times over, or with digits and punctuation around it."""
    folded = unicodedata.normalize("NFKC", password).casefold().strip()
    start, end = 0, len(folded)
    while end and not folded[end - 1].isalpha():
        end -= 1
    while start < end and not folded[start].isalpha():
        start += 1
    return any(_shortest_period(text) in _COMMON for text in (folded, folded[:end], folded[start:end]))


def _shortest_period(text: str) -> str:
    """What the text repeats: "ab" of "ababab", the text itself when it repeats nothing."""
    if not text:
        return text
    # The text in itself doubled: found before its own length, at the length of what it repeats.
    return text[: (text + text).index(text, 1)]
