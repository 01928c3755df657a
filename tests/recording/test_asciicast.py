"""The file that other players play."""

from __future__ import annotations

import json

from libs.common.recording.asciicast import render
from libs.common.recording.events import ERROR, RESIZE, STDERR, STDIN, STDOUT

FACTS = {"user": "ada", "cluster": "prod", "namespace": "default", "pod": "web", "command": ["sh", "-c", "x"]}


def lines(events):
    return [json.loads(line) for line in render(FACTS, 1772366400.5, events)]


def test_the_head_has_the_first_size_and_each_event_its_kind():
    made = lines(
        [(0.1, RESIZE, b"120x40"), (0.25, STDOUT, b"$ "), (1.0, STDIN, b"ls\n"), (1.5, STDERR, b"no"), (2.0, RESIZE, b"80x24"),
         (3.0, ERROR, b"{}")]
    )  # fmt: skip
    assert (made[0]["version"], made[0]["width"], made[0]["height"], made[0]["timestamp"]) == (2, 120, 40, 1772366400)
    assert made[0]["command"] == "sh -c x"
    assert made[1:] == [
        [0.1, "r", "120x40"],
        [0.25, "o", "$ "],
        [1.0, "i", "ls\n"],
        [1.5, "o", "no"],
        [2.0, "r", "80x24"],
    ]


def test_a_session_without_a_terminal_gets_the_usual_size():
    assert (lines([(0, STDOUT, b"x")])[0]["width"], lines([])[0]["height"]) == (80, 24)


def test_a_character_that_is_cut_between_events_is_whole_in_the_file():
    euro = "€".encode()
    assert [line[2] for line in lines([(0, STDOUT, euro[:1]), (1, STDOUT, euro[1:] + b"!\xff")])[1:]] == ["€!�"]
