"""`herdsman access`: what is asked of the hub, and how the answer is shown and exported."""

from __future__ import annotations

import json

import pytest

from services.cli.access_answers import render_csv
from services.cli.main import run

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


REQUESTS, POLICIES = ("/apis/management.herdsman.dev/v1/" + p for p in ("accessrequests", "accesspolicies"))


def test_a_request_says_what_for_how_long_and_why(signed_in, answers, capsys):
    answers.plan("POST", REQUESTS, 201, {"status": {"missing": 2}})
    words = ["--role", "cluster-member", "--cluster", "prod", "--for", "1h", "--reason", "stuck"]
    assert run(["access", "request", *words]) == 0
    body = answers.seen[-1][3]
    assert body["spec"] == {
        "role": "cluster-member",
        "scope": {"cluster": "prod"},
        "durationSeconds": 3600,
        "reason": "stuck",
    }
    shown = capsys.readouterr()
    assert shown.out.strip() == body["metadata"]["name"]
    assert "2 approvals missing" in shown.err
    assert run(["access", "request", *words[:2], *words[4:]]) == 2


def test_an_emergency_says_that_it_is_one(signed_in, answers, capsys):
    answers.plan("POST", REQUESTS, 201, {"status": {"phase": "Granted", "until": "2026-01-01T00:00:00Z"}})
    words = ["--role", "cluster-owner", "--global", "--for", "1h", "--reason", "down", "--break-glass"]
    assert run(["access", "request", *words]) == 0
    assert answers.seen[-1][3]["spec"]["breakGlass"] is True
    assert "an alarm was raised" in capsys.readouterr().err
    answers.plan("GET", REQUESTS, 200, {"items": []})
    assert run(["access", "list", "--unreviewed", "--break-glass", "-o", "name"]) == 0
    assert "spec.breakGlass%3Dtrue%2Cstatus.unreviewed%3Dtrue" in answers.seen[-1][1]


def test_an_approval_is_of_what_was_read_and_is_tried_again_on_what_came_between(signed_in, answers, capsys):
    first = {"verdict": "approve", "by": "bob"}
    answers.plan("GET", f"{REQUESTS}/r", 200, {"metadata": {"resourceVersion": "7"}, "spec": {}})
    answers.plan(
        "PATCH",
        f"{REQUESTS}/r",
        409,
        {"kind": "Status", "reason": "Conflict", "message": "the object has been modified"},
    )
    answers.plan("GET", f"{REQUESTS}/r", 200, {"metadata": {"resourceVersion": "8"}, "spec": {"decisions": [first]}})
    answers.plan(
        "PATCH", f"{REQUESTS}/r", 200, {"status": {"phase": "Granted", "until": "2026-01-01T00:00:00Z", "binding": "b"}}
    )
    assert run(["access", "approve", "r", "--comment", "go"]) == 0
    assert answers.seen[-1][3] == {
        "metadata": {"resourceVersion": "8"},
        "spec": {"decisions": [first, {"verdict": "approve", "comment": "go"}]},
    }
    assert "granted until 2026-01-01T00:00:00Z" in capsys.readouterr().err


def test_a_conflict_that_says_more_is_told(signed_in, answers, capsys):
    answers.plan("GET", f"{REQUESTS}/r", 200, {"metadata": {"resourceVersion": "7"}, "spec": {}})
    answers.plan(
        "PATCH", f"{REQUESTS}/r", 409, {"kind": "Status", "reason": "Conflict", "message": "there is nothing to decide"}
    )
    assert run(["access", "deny", "r"]) == 1
    assert "nothing to decide" in capsys.readouterr().err


def test_a_policy_names_people_and_groups_by_their_ids(signed_in, answers):
    answers.plan(
        "GET", "/apis/management.herdsman.dev/v1/groups/ops", 200, {"status": {"principalId": "local:group:1"}}
    )
    answers.plan("POST", POLICIES, 201, {})
    words = ["--role", "cluster-member", "--cluster", "prod", "--any-project", "--requester", "*", "--longest", "4h"]
    assert (
        run(["access", "policy", "create", "p", *words, "--approver", "group:ops", "--approver", "ldap:group:x"]) == 0
    )
    assert answers.seen[-1][3]["spec"] == {
        "roles": ["cluster-member"], "scopes": [{"cluster": "prod"}, {"anyProject": True}], "approvals": 1, "maxSeconds": 14400,
        "description": "", "requesters": ["*"], "approvers": ["local:group:1", "ldap:group:x"],
    }  # fmt: skip
    assert run(["access", "policy", "create", "p", *words]) == 2
