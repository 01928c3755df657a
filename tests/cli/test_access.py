"""`herdsman access`: what is asked of the hub, and how the answer is shown and exported."""

from __future__ import annotations

import json

import pytest

from services.cli.access_answers import render_csv
from services.cli.main import run
from tests.cli.test_hub import answers, authority, server, signed_in

__all__ = ["answers", "authority", "server", "signed_in"]

REVIEWS = "/apis/management.herdsman.dev/v1/accessreviews"
DIRECT = {
    "user": "ana", "principal": "local:user:1", "group": "", "how": "", "rights": ["get secrets", "list secrets"], "onlyNames": [],
    "where": "cluster prod", "binding": "b1", "role": "heir", "inherits": ["heir", "reader"], "notAfter": "2026-01-01T00:00:00Z",
}  # fmt: skip
ROUND = {
    "user": "", "principal": "ldap:group:=cmd", "group": "ldap:group:=cmd", "how": "runs pods that mount it", "rights": ["create pods"],
    "onlyNames": ["=x"], "where": "project shop", "binding": "b2", "role": "member", "inherits": ["member"],
}  # fmt: skip


def answer(spec=None, **status):
    return {"kind": "AccessReview", "spec": spec or {}, "status": {"paths": [], "notes": [], **status}}


def asked(answers):
    method, path, _, body = answers.seen[-1]
    assert (method, path) == ("POST", REVIEWS)
    return body["spec"]


def test_who_can_asks_and_shows_the_chain(signed_in, answers, capsys):
    answers.plan("POST", REVIEWS, 201, answer(paths=[DIRECT, ROUND], incomplete=True, notes=["by hand"], omitted=2))
    assert run(["access", "who-can", "reach", "secrets", "--name", "db", "--cluster", "prod", "-n", "pay"]) == 0
    assert asked(answers) == {
        "verb": "reach",
        "resource": "secrets",
        "name": "db",
        "cluster": "prod",
        "namespace": "pay",
    }
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].split() == ["WHO", "CAN", "WHERE", "WHY", "UNTIL"]
    assert "heir > reader (b1)" in lines[1]
    assert "runs pods that mount it (create pods named =x)" in lines[2]
    assert "group ldap:group:=cmd > member (b2)" in lines[2]
    assert "by hand" in shown.err
    assert "2 more" in shown.err
    assert "you see only" in shown.err


@pytest.mark.parametrize(
    ("words", "spec"),
    [
        (["who-can", "get", "pods/log"], {"verb": "get", "resource": "pods/log"}),
        (["who-can", "update", "deployments.apps/scale"], {"verb": "update", "resource": "deployments/scale", "apiGroup": "apps"}),
        (["who-can", "update", "clusters", "--hub", "--name", "prod"],
         {"verb": "update", "resource": "clusters", "apiGroup": "management.herdsman.dev", "name": "prod"}),
        (["explain", "ana"], {"user": "ana"}),
        (["explain", "ldap:group:ops", "get", "pods", "--cluster", "prod"],
         {"principal": "ldap:group:ops", "verb": "get", "resource": "pods", "cluster": "prod"}),
        (["what-if", "--without", "b1", "--without", "b2"], {"whatIf": {"remove": ["b1", "b2"]}}),
        (["what-if", "get", "pods", "--grant-user", "ana", "--role", "cluster-owner", "--in-cluster", "prod"],
         {"verb": "get", "resource": "pods", "whatIf": {"add": [{"user": "ana", "role": "cluster-owner", "scope": {"cluster": "prod"}}]}}),
    ],
)  # fmt: skip
def test_words_become_a_question(signed_in, answers, words, spec):
    answers.plan("POST", REVIEWS, 201, answer())
    assert run(["access", *words]) == 0
    assert asked(answers) == spec


@pytest.mark.parametrize(
    "words",
    [
        ["who-can", "get"], ["explain", "ana", "get"], ["what-if"], ["what-if", "--grant-user", "ana"],
        ["what-if", "--grant-user", "ana", "--role", "x"], ["what-if", "--role", "x", "--in-all"],
    ],
)  # fmt: skip
def test_half_a_question_is_wrong_usage(signed_in, words):
    assert run(["access", *words]) == 2


def test_a_role_file_is_asked_about_as_it_is(signed_in, answers, capsys, tmp_path):
    file = tmp_path / "role.yaml"
    file.write_text("kind: RoleTemplate\nmetadata: {name: reader}\nspec: {scope: cluster}\n")
    changed = {"role": "reader", "gained": ["get pods"], "lost": []}
    answers.plan("POST", REVIEWS, 201, answer({"whatIf": {}}, gained=[DIRECT], roles=[changed]))
    assert run(["access", "what-if", "--role-file", str(file)]) == 0
    assert asked(answers) == {"whatIf": {"roles": [{"name": "reader", "spec": {"scope": "cluster"}}]}}
    shown = capsys.readouterr().out
    assert "gained   ana" in shown
    assert "role reader gained: get pods" in shown
    file.write_text("kind: Pod")
    assert run(["access", "what-if", "--role-file", str(file)]) == 2


def test_json_is_the_object_and_csv_is_for_spreadsheets(signed_in, answers, capsys):
    for form in ("json", "csv"):
        answers.plan("POST", REVIEWS, 201, answer(paths=[DIRECT]))
        assert run(["access", "who-can", "get", "secrets", "-o", form]) == 0
        shown = capsys.readouterr().out
        if form == "json":
            assert json.loads(shown)["status"]["paths"] == [DIRECT]
    assert shown.startswith("change,user,principal")
    assert render_csv({"paths": [DIRECT], "lost": [ROUND]}) == (
        "change,user,principal,group,how,rights,onlyNames,where,binding,role,inherits,notAfter\n"
        ",ana,local:user:1,,,get secrets; list secrets,,cluster prod,b1,heir,heir; reader,2026-01-01T00:00:00Z\n"
        "lost,,ldap:group:=cmd,ldap:group:=cmd,runs pods that mount it,create pods,'=x,project shop,b2,member,member,\n"
    )


def test_nobody_is_said(signed_in, answers, capsys):
    answers.plan("POST", REVIEWS, 201, answer())
    assert run(["access", "who-can", "get", "secrets"]) == 0
    assert "nobody can" in capsys.readouterr().err
