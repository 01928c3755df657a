"""Nodes by the command line."""

from __future__ import annotations

from services.cli.main import run


def test_a_node_is_shown_with_its_machine_and_who_else_says_to_be_it(signed_in, answers, capsys):
    status = {
        "ready": True,
        "machine": "m-1",
        "reboots": 2,
        "bootedAt": "2026-01-02T00:00:00Z",
        "osImage": "\x1b[31mDebian",
        "conditions": [],
    }
    document = {
        "metadata": {"name": "prod.w1", "labels": {"zone": "a"}},
        "spec": {"cluster": "prod", "nodeName": "w1"},
        "status": status,
    }
    answers.plan("GET", "/apis/management.herdsman.dev/v1/nodes/prod.w1", 200, document)
    answers.plan("GET", "/v1/nodes/prod.w1/history", 200, {"sameIdentity": ["prod.w2"], "changes": []})
    assert run(["node", "show", "w1", "--cluster", "prod"]) == 0
    shown = capsys.readouterr().out
    assert "same identity as: prod.w2" in shown
    assert "2, the last seen 2026-01-02T00:00:00Z" in shown
    assert "\x1b" not in shown


def test_the_history_of_a_node_is_a_table(signed_in, answers, capsys):
    flapping = {"time": "T1", "until": "T2", "count": 6, "what": "ready", "before": "True", "after": "False"}
    answers.plan("GET", "/v1/nodes/prod.w1/history", 200, {"changes": [flapping], "dropped": 4, "sameIdentity": []})
    assert run(["node", "history", "prod.w1"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "TIME   TIMES        WHAT    BEFORE   AFTER\nT1     6 until T2   ready   True     False\n"
    assert "4 older changes" in shown.err


def test_nodes_are_listed_by_cluster_and_labels(signed_in, answers, capsys):
    answers.plan("GET", "/apis/management.herdsman.dev/v1/nodes", 200, {"columnDefinitions": [{"name": "Name"}], "rows": [{"cells": ["prod.w1"]}], "metadata": {}})  # fmt: skip
    assert run(["node", "list", "--cluster", "prod", "-l", "zone=a"]) == 0
    assert "fieldSelector=spec.cluster%3Dprod" in answers.seen[0][1]
    assert "labelSelector=zone%3Da" in answers.seen[0][1]
