from __future__ import annotations

import pytest

from libs.common.bus.subject import match


@pytest.mark.parametrize(
    ("pattern", "subject", "tokens"),
    [
        ("a.b", "a.b", ()),
        ("a.b", "a.c", None),
        ("a.b", "a.b.c", None),
        ("a.b.c", "a.b", None),
        ("up.*.hb", "up.c1.hb", ("c1",)),
        ("up.*.st.*", "up.c1.st.nodes", ("c1", "nodes")),
        ("up.*", "up.c1.hb", None),
        ("up.*.>", "up.c1.st.nodes", ("c1", "st.nodes")),
        ("up.>", "up", None),
        (">", "up.c1", ("up.c1",)),
    ],
)
def test_a_pattern_gives_what_its_wildcards_stand_for(
    pattern: str, subject: str, tokens: tuple[str, ...] | None
) -> None:
    assert match(pattern, subject) == tokens
