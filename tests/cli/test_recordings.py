"""`herdsman recordings` against a scripted hub, and its player in a terminal."""

from __future__ import annotations

import base64
import json
import os
import pty
import select
import subprocess
import sys
import time

import pytest

from libs.common.recording.events import RESIZE, STDIN, STDOUT
from services.cli.main import run

ID = "20260301t120001-00000001"
FACTS = {
    "id": ID, "user": "ada", "cluster": "prod", "namespace": "default", "pod": "web", "action": "exec", "command": ["sh", "-c", "\x1b[31m"],
    "started": "2026-03-01T12:00:01Z",
}  # fmt: skip
OUTCOME = {"exitCode": 3, "httpStatus": 101, "durationMs": 61_000, "message": "exit code 3"}
EVENTS = [
    (0, RESIZE, b"100x30"),
    (10, STDOUT, b"$ "),
    (20, STDIN, b"ls\r"),
    (30, STDOUT, b"\x1b]52;c;ZQ==\x07red\x1b[6n\r\n"),
]


def document(*, problem="", outcome=OUTCOME, messages=4):
    return {
        "kind": "SessionRecording",
        "facts": FACTS,
        "outcome": outcome,
        "check": {"messages": messages, "problem": problem},
    }


def lines(*ends, events=EVENTS):
    listed = [{"facts": FACTS, "check": {"messages": 1, "problem": ""}}]
    listed += [[ms, channel, base64.b64encode(data).decode()] for ms, channel, data in events]
    return b"".join(json.dumps(line).encode() + b"\n" for line in [*listed, *(ends or [document()])])


@pytest.fixture
def hub(signed_in, answers):
    answers.plan("GET", f"/v1/recordings/{ID}/events", 200, lines())
    return answers


def test_the_list_shows_who_did_what_and_how_it_ended_and_steers_no_terminal(signed_in, answers, capsys):
    unfinished = document(outcome=None)
    answers.plan("GET", "/v1/recordings", 200, {"items": [document(), unfinished]})
    assert run(["recordings", "list", "--user", "ada", "--cluster", "prod", "--since", "2h"]) == 0
    shown = capsys.readouterr().out
    assert "sh -c �[31m" in shown
    assert "1 min 1 s   exit 3" in shown
    assert "unfinished" in shown
    assert "\x1b" not in shown
    assert "user=ada&cluster=prod&since=" in answers.seen[-1][1]


def test_playing_shows_the_output_without_what_harms_and_tells_the_end(hub, capsys):
    assert run(["recordings", "play", ID, "--no-timing"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "$ red\r\n"
    assert "exit 3: exit code 3" in shown.err


def test_playing_an_unfinished_one_says_so(signed_in, answers, capsys):
    answers.plan("GET", f"/v1/recordings/{ID}/events", 200, lines(document(outcome=None)))
    assert run(["recordings", "play", ID, "--no-timing"]) == 0
    assert "unfinished" in capsys.readouterr().err


def test_playing_what_is_not_genuine_ends_with_an_error(signed_in, answers, capsys):
    answers.plan(
        "GET", f"/v1/recordings/{ID}/events", 200, lines(document(problem="message 2 is not genuine", outcome=None))
    )
    assert run(["recordings", "play", ID, "--no-timing"]) == 1
    assert "message 2 is not genuine" in capsys.readouterr().err


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(signed_in, answers, capsys):
    answers.plan("GET", f"/v1/recordings/{ID}/events", 200, lines()[:-40])
    assert run(["recordings", "play", ID, "--no-timing"]) == 1
    assert "broke off" in capsys.readouterr().err
    answers.plan("GET", f"/v1/recordings/{ID}/events", 200, b"")


def test_an_export_is_an_asciicast(hub, capsys, tmp_path):
    file = tmp_path / "session.cast"
    assert run(["recordings", "export", ID, "--format", "asciicast", "--output", str(file)]) == 0
    head, *events = (json.loads(line) for line in file.read_text().splitlines())
    assert (head["version"], head["width"], head["height"]) == (2, 100, 30)
    assert events == [[0.0, "r", "100x30"], [0.01, "o", "$ "], [0.02, "i", "ls\r"], [0.03, "o", "red\r\n"]]
    assert file.stat().st_mode & 0o777 == 0o600
    assert run(["recordings", "export", ID, "--raw"]) == 0
    assert "]52;c" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "code", "word"),
    [
        (document(), 0, "is whole and genuine: 4 messages, exit 3"),
        (document(outcome=None), 1, "is unfinished"),
        (document(problem="message 2 was changed"), 1, "message 2 was changed"),
    ],
)
def test_verifying_says_what_it_is_worth(signed_in, answers, capsys, answer, code, word):
    answers.plan("GET", f"/v1/recordings/{ID}", 200, answer)
    assert run(["recordings", "verify", ID]) == code
    shown = capsys.readouterr()
    assert word in shown.out + shown.err


# ── in a terminal ──


PLAYER = """
import sys
from services.cli.player import play
play([(0.0, 1, b"one\\r\\n"), (float(sys.argv[1]), 1, b"two\\r\\n")], speed=float(sys.argv[2]), max_idle_s=None, timing=True)
"""


class Viewer:
    """The player in a terminal of its own."""

    def __init__(self, idle_s: float, speed: float = 1.0) -> None:
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-c", PLAYER, str(idle_s), str(speed)],
            stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.theirs = theirs
        self.output = b""

    def wait_for(self, text: bytes) -> None:
        deadline = time.monotonic() + 20
        while text not in self.output:
            assert time.monotonic() < deadline, self.output
            ready, _, _ = select.select([self.ours], [], [], 1)
            if ready:
                self.output += os.read(self.ours, 4096)

    def close(self) -> int:
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self.theirs)
            os.close(self.ours)


def is_echoing(fd: int) -> bool:
    import termios

    return bool(termios.tcgetattr(fd)[3] & termios.ECHO)


def test_ctrl_c_ends_it_and_leaves_the_terminal_as_it_was():
    viewer = Viewer(600)
    viewer.wait_for(b"one")
    assert not is_echoing(viewer.theirs)
    os.write(viewer.ours, b"\x03")
    viewer.wait_for(b"\x1b[?25h")
    assert viewer.process.wait(20) != 0
    assert is_echoing(viewer.theirs)
    assert b"two" not in viewer.output
    viewer.close()


def test_speed_shortens_the_pauses():
    viewer = Viewer(600, speed=1e9)
    viewer.wait_for(b"two")
    assert viewer.close() == 0
