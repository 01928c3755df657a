"""`herdsman audit` against a scripted hub: what is printed, exports that broke off, and exit codes that scripts rely on."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import serialization

from libs.common import errors
from libs.common.audit.chain import read_batch
from services.cli.main import run
from tests.audit.test_chain import KEY, Maker, event

PATH = "/apis/management.herdsman.dev/v1/auditevents"
PEM = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def end(more: str = "", at: str = "9.0") -> bytes:
    page = {"kind": "AuditPage", "continue": more, "next": more or at, "firstSequence": 1, "lastSequence": 8}
    return json.dumps(page).encode() + b"\n"


def page(*lines: bytes, more: str = "") -> bytes:
    return b"".join(line + b"\n" for line in lines) + end(more)


def sealed(maker: Maker) -> list[bytes]:
    lines = []
    for message in maker.messages:
        seal, batch = read_batch(message)
        lines += [seal.to_line(), *batch]
    return lines


def told(**facts) -> bytes:
    document = {
        "kind": "Event", "stageTimestamp": "2026-01-02T03:04:05.123456Z", "stage": "ResponseComplete", "user": {"username": "ada"}, "verb": "create",
        "objectRef": {"resource": "pods", "subresource": "exec", "namespace": "shop", "name": "p"}, "requestURI": "/x",
        "responseStatus": {"code": 403}, "annotations": {"audit.herdsman.dev/cluster": "prod", "audit.herdsman.dev/reason": "no role"}, **facts,
    }  # fmt: skip
    return json.dumps(document).encode()


def test_what_strangers_ask_for_neither_steers_the_terminal_nor_looks_like_another_line(signed_in, answers, capsys):
    name = "x\x1b]0;owned\x07\n2026-01-02T03:04:05.123Z ada delete \x9b2J"
    answers.plan("GET", PATH, 200, page(told(objectRef={"resource": "users", "name": name})))
    assert run(["audit", "tail"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2
    assert not {"\x1b", "\x9b", "\x07"} & set(out)


def test_tail_prints_rows_for_people_and_lines_for_programs(signed_in, answers, capsys):
    answers.plan("GET", PATH, 200, page(told()))
    assert run(["audit", "tail", "--cluster", "", "--denied", "--resource", "pods/exec"]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split() == [
        "2026-01-02T03:04:05.123Z",
        "ada",
        "create",
        "prod",
        "403",
        "pods/exec",
        "shop/p",
        "(no",
        "role)",
    ]
    assert "cluster=&" in answers.seen[0][1] + "&"
    assert "denied=true" in answers.seen[0][1]
    assert run(["audit", "tail", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["verb"] == "create"


@pytest.mark.parametrize("arguments", [["--since", "yesterday"], ["--since", "2026-01-01T00:00:00"]])
def test_a_time_that_is_none_is_wrong_usage(signed_in, answers, arguments):
    assert run(["audit", "tail", *arguments]) == 2


def test_an_export_that_broke_off_is_taken_up_where_it_was(signed_in, answers, tmp_path, capsys):
    whole = sealed(Maker("a").start().add(event(1), event(2)).end())
    first, second = page(*whole[:5], more="4.0"), page(*whole[5:])
    file = tmp_path / "log"
    answers.plan("GET", PATH, 200, first)  # whether seals may be had
    answers.plan("GET", PATH, 200, first)
    answers.status("GET", PATH, errors.Denied("not now"))
    assert run(["audit", "export", "--output", str(file)]) == 4
    assert file.read_bytes().splitlines() == whole[:5]
    with file.open("ab") as half:
        half.write(b"half a line that a crash left")
    answers.planned[("GET", PATH)] = [(200, second, {})]
    asked = len(answers.seen)
    assert run(["audit", "export", "--output", str(file)]) == 0
    assert len(answers.seen) == asked + 1
    assert "continue=4.0" in answers.seen[-1][1]
    assert file.read_bytes().splitlines() == whole
    assert file.stat().st_mode & 0o777 == 0o600
    assert "2 events" in capsys.readouterr().err
    assert run(["audit", "export", "--output", str(file)]) == 1  # it is there already
    key = tmp_path / "key.pem"
    key.write_bytes(PEM)
    assert run(["audit", "verify", str(file), "--public-key", str(key)]) == 0


def test_who_sees_some_clusters_exports_without_seals(signed_in, answers, tmp_path, capsys):
    answers.status("GET", PATH, errors.Denied("seals are for others"))
    answers.plan("GET", PATH, 200, page(told()))
    assert run(["audit", "export", "--output", str(tmp_path / "log")]) == 0
    assert "cannot be verified" in capsys.readouterr().err
    assert "seals" not in answers.seen[-1][1]


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        (lambda lines: lines, 0, "whole"),
        (lambda lines: [line.replace(b'"n":1', b'"n":9') for line in lines], 1, "BROKEN"),
        (lambda lines: lines[:2] + lines[3:], 1, "BROKEN"),
        (lambda lines: lines[:2] + lines[5:], 1, "BROKEN"),
        (lambda lines: lines[2:], 1, "BROKEN"),
    ],
)
def test_verify_says_it_by_its_exit_code(signed_in, answers, capsys, change, code, word):
    lines = sealed(Maker("a").start().add(event(1), event(2)).end())
    answers.plan("GET", "/v1/audit/key", 200, PEM)
    answers.plan("GET", PATH, 200, page(*change(lines)))
    assert run(["audit", "verify"]) == code
    assert word in capsys.readouterr().out


def test_verify_tells_gaps_by_a_code_of_their_own(signed_in, answers, capsys):
    answers.plan("GET", "/v1/audit/key", 200, PEM)
    answers.plan("GET", PATH, 200, page(*sealed(Maker("a").start().end("killed"))))
    assert run(["audit", "verify"]) == 6
    assert "without a stop" in capsys.readouterr().err


def test_an_answer_that_was_cut_is_no_end_of_the_log(signed_in, answers):
    answers.plan("GET", PATH, 200, told() + b"\n")
    assert run(["audit", "tail"]) == 1
