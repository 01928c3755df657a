"""Roles by the command line: written in words, shown with what they inherit, deleted after a yes."""

from __future__ import annotations

from libs.common import errors
from services.cli.main import run

ROLES = "/apis/management.herdsman.dev/v1/roletemplates"


def test_a_role_is_created_from_rules_in_words(signed_in, answers, capsys):
    answers.plan("POST", ROLES, 201, {})
    words = [
        "--scope",
        "cluster",
        "--inherits",
        "cluster-viewer",
        "--rule",
        "get,list secrets web,db",
        "--rule",
        "patch deployments.apps,pods",
    ]
    assert run(["role", "create", "fixer", *words, "--hub-rule", "get nodes", "--description", "mends things"]) == 0
    assert answers.seen[0][3]["spec"] == {
        "scope": "cluster",
        "description": "mends things",
        "inherits": ["cluster-viewer"],
        "rules": [
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["web", "db"]},
            {"verbs": ["patch"], "apiGroups": ["apps"], "resources": ["deployments"]},
            {"verbs": ["patch"], "apiGroups": [""], "resources": ["pods"]},
        ],
        "hubRules": [{"verbs": ["get"], "apiGroups": ["management.herdsman.dev"], "resources": ["nodes"]}],
    }
    assert "herdsman grant --user USER --role fixer --cluster CLUSTER" in capsys.readouterr().err


def test_a_role_is_shown_with_what_it_inherits_and_from_where(signed_in, answers, capsys):
    def stored(name, scope, *inherits, **spec):
        return {"metadata": {"name": name}, "spec": {"scope": scope, "inherits": list(inherits), **spec}}

    pods = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"]}
    top = stored("top", "project", "middle", "elsewhere", rules=[pods], description="for tests")
    nodes = {"verbs": ["*"], "apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["web"]}
    others = [
        top,
        stored("middle", "project", "top", rules=[nodes], hubRules=[{"verbs": ["get"], "apiGroups": ["management.herdsman.dev"], "resources": ["projects"]}]),
        stored("elsewhere", "cluster", rules=[nodes]),
    ]  # fmt: skip
    answers.plan("GET", f"{ROLES}/top", 200, top)
    answers.plan("GET", ROLES, 200, {"items": others, "metadata": {}})
    assert run(["role", "show", "top"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:4] == [
        "Name:         top",
        "Scope:        project",
        "Description:  for tests",
        "Inherits:     middle, elsewhere",
    ]
    assert [line.split() for line in shown[5:]] == [
        ["VERBS", "RESOURCES", "NAMES", "WHERE", "FROM"],
        ["get", "pods,pods/log", "*", "in", "its", "namespaces", "top"],
        ["*", "deployments.apps", "web", "in", "its", "namespaces", "middle"],
        ["get", "projects", "*", "on", "the", "hub", "middle"],
    ]


def test_a_role_is_deleted_after_a_yes(signed_in, answers, capsys):
    answers.plan("DELETE", f"{ROLES}/fixer", 200, {})
    assert run(["role", "delete", "fixer"]) == 2
    assert answers.seen == []
    assert run(["role", "delete", "fixer", "--yes"]) == 0
    answers.planned.clear()
    answers.status("DELETE", f"{ROLES}/fixer", errors.Conflict('cannot delete role "fixer": it is bound'))
    assert run(["role", "delete", "fixer", "--yes"]) == 1
    assert "it is bound" in capsys.readouterr().err
