from __future__ import annotations

import pytest

from services.cli.commands.second_factor import draw, spaced
from services.cli.main import run


def test_a_terminal_shows_two_rows_in_each_line_and_loses_none():
    rows = ["010", "001", "110"]
    lines = [line.split("m", 1)[1].removesuffix("\x1b[0m") for line in draw(rows)]
    assert lines == [" ▀▄", "▀▀ "]


def test_a_secret_is_shown_in_groups_that_people_can_type():
    assert spaced("ABCDEFGHIJ") == "ABCD EFGH IJ"


@pytest.mark.parametrize("arguments", [["set"], ["remove"], ["remove", "ana"]])
def test_without_a_terminal_it_says_what_is_missing(signed_in, capsys, arguments):
    assert run(["user", "second-factor", *arguments]) == 2
    assert "terminal" in capsys.readouterr().err


def test_that_of_somebody_else_needs_no_password(signed_in, answers):
    answers.plan("POST", "/v1/second-factor/remove", 200, {})
    assert run(["user", "second-factor", "remove", "ana", "--yes"]) == 0
    assert answers.seen[-1][3] == {"user": "ana"}
