"""What a viewer's terminal is sent: drawing, and nothing else, however it is cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.recording.screen import Screen

HARMLESS = [
    "plain text, ünïcödé, 日本語\r\n\t\b\a",
    "\x1b[31;1mred\x1b[0m \x1b[38;5;196m \x1b[38;2;1;2;3m \x1b[4:3m",
    "\x1b[2J\x1b[H\x1b[10;20H\x1b[K\x1b[1;24r\x1b[5A\x1b[3P\x1b[2L",
    "\x1b[?25l\x1b[?25h\x1b[?1049h\x1b[?1049l\x1b[?7l\x1b[4h",
    "\x1b7\x1b8\x1bD\x1bM\x1bE\x1b(0lqk\x1b(B\x1b#8\x1bc",
    "\x1b[!p\x1b[2 q\x1b[s\x1b[u",
]
HARMFUL = {
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "clipboard, other end": "\x1b]52;c;ZXZpbA==\x1b\\",
    "title": "\x1b]0;title\x07",
    "hyperlink": "\x1b]8;;http://evil\x1b\\",
    "cwd": "\x1b]7;file://x\x07",
    "iterm": "\x1b]1337;File=:AAAA\x07",
    "device control": "\x1bP+q544e\x1b\\",
    "device control, sixel": "\x1bPq#0\x1b\\",
    "application": "\x1b_Gi=1;AAAA\x1b\\",
    "privacy": "\x1b^x\x1b\\",
    "start of string": "\x1bXx\x1b\\",
    "answerback": "\x05",
    "title report": "\x1b[21t",
    "window": "\x1b[3;0;0t\x1b[8;1;1t",
    "position report": "\x1b[6n",
    "position report, private": "\x1b[?6n",
    "attributes": "\x1b[c\x1b[>c\x1b[=c\x1b[0c",
    "identify": "\x1bZ",
    "version": "\x1b[>0q",
    "terminal parameters": "\x1b[x",
    "mode request": "\x1b[?1$p\x1b[4$p",
    "checksum": "\x1b[1;1;1;1;1;1*y",
    "print": "\x1b[5i\x1b[?5i",
    "mouse": "\x1b[?1000h\x1b[?1003h\x1b[?1006h",
    "mouse among others": "\x1b[?25;1003h",
    "focus": "\x1b[?1004h",
    "paste": "\x1b[?2004h",
    "keyboard": "\x1b[>4;2m\x1b[>1u\x1b[=1u\x1b[?u",
    "application keys": "\x1b[?1h\x1b=\x1b>",
    "leds": "\x1b[1q",
    "locator": "\x1b[1'z",
    "graphics query": "\x1b[?1;1;0S",
    "highlight tracking": "\x1b[1;1;1;1;1T",
    "character set": "\x1b%@",
    "shifts": "\x1bN\x1bO\x1bn\x1bo\x1b|\x1b}\x1b~",
    "8-bit answers": "\x1b G",
    "endless repeat": "\x1b[99999999b",
    "C1": "\x9b6n\x9d52;c;AA\x9c\x90x\x9c\x85",
    "C0": "\x00\x01\x02\x06\x10\x11\x13\x7f",
}
ALLOWED = re.compile(
    r"(?:[^\x00-\x1f\x7f-\x9f]|[\a\b\t\n\v\f\r\x0e\x0f]|\x1b[78DEHMc]|\x1b[()][0AB]|\x1b#[3-9]"
    r"|\x1b\[(?:\?[0-9;]*[hlJK]|[0-9;:]*[@A-HIJ-MPSTXZ`abdefghlmrsu]|[0-6]? q|!p))*"
)


def shown(*parts: bytes) -> str:
    screen = Screen()
    return "".join(screen.feed(part) for part in parts)


@pytest.mark.parametrize("text", HARMLESS)
def test_drawing_passes_unchanged(text):
    assert shown(text.encode()) == text


@pytest.mark.parametrize("text", HARMFUL.values(), ids=HARMFUL.keys())
def test_what_is_no_drawing_is_left_out_and_the_text_around_it_stays(text):
    left = shown(b"before" + text.encode() + b"after")
    assert left in ("beforeafter", "before52;c;AAxafter", "before6n52;c;AAxafter"), left


@given(st.binary(max_size=300))
def test_whatever_comes_only_drawing_goes_out(data):
    assert ALLOWED.fullmatch(shown(data)) is not None


_PIECES = st.sampled_from(
    [*HARMFUL.values(), *HARMLESS, "\x1b", "\x1b[", "\x1b]", "\x1bP", "\x18", "\x1a", ";", "?", "m", "\\", "é"]
)


@given(st.lists(_PIECES, max_size=12).map("".join), st.integers(1, 7))
def test_sequences_mixed_and_cut_anywhere_show_the_same_and_only_draw(text, size):
    data = text.encode()
    whole = shown(data)
    assert shown(*(data[i : i + size] for i in range(0, len(data), size))) == whole
    assert ALLOWED.fullmatch(whole) is not None
    assert shown(whole.encode()) == whole


def test_bytes_that_are_no_text_are_replaced():
    assert shown(b"a\x9bb\xffc") == "a�b�c"


def test_an_endless_sequence_is_not_kept():
    screen = Screen()
    screen.feed(b"\x1b[")
    for _ in range(50):
        assert screen.feed(b"1" * 1000) == ""
    assert len(screen._sequence) < 100
    assert screen.feed(b"mtext") == "text"
