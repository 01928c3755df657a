"""The HTTP client against a real TLS server on loopback: trust, errors, retries."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from libs.common import errors
from libs.common.crypto import ca
from services.cli.hub import Hub
from services.cli.main import run
from services.cli.settings import Server, load_settings


def test_token_is_sent_and_the_answer_is_the_document(server, answers):
    answers.plan("GET", "/x", 200, {"a": 1})
    with Hub(server) as hub:
        assert hub.get("/x", {"limit": "5"}) == {"a": 1}
    _, path, headers, _ = answers.seen[0]
    assert path == "/x?limit=5"
    assert headers["Authorization"] == "Bearer hm_a_b"


@pytest.mark.parametrize(
    "family",
    [
        errors.NotFound,
        errors.Denied,
        errors.AlreadyExists,
        errors.Conflict,
        errors.Invalid,
        errors.Expired,
        errors.Timeout,
    ],
)
def test_a_status_becomes_its_family_with_causes(server, answers, family):
    answers.status(
        "POST", "/x", family("what is wrong", kind="Cluster", name="prod", causes=[errors.Cause("spec.a", "no")])
    )
    with Hub(server) as hub, pytest.raises(family, match="what is wrong") as caught:
        hub.post("/x", {})
    assert (caught.value.name, caught.value.causes[0].field) == ("prod", "spec.a")


def test_an_ended_sign_in_says_what_to_do(server, answers):
    answers.status("GET", "/x", errors.Unauthenticated("unknown token"))
    with Hub(server) as hub, pytest.raises(errors.Unauthenticated, match="herdsman login"):
        hub.get("/x")


def test_an_answer_that_is_no_status_is_named(server, answers):
    answers.plan("GET", "/x", 404, b"<html>")
    with Hub(server) as hub, pytest.raises(errors.NotFound, match="answered 404"):
        hub.get("/x")
    answers.plan("GET", "/y", 200, b"<html>")
    with Hub(server) as hub, pytest.raises(errors.Unavailable, match="does not look like a Herdsman hub"):
        hub.get("/y")


def test_a_read_is_tried_again_when_the_hub_says_so_and_a_write_is_not(server, answers):
    busy = errors.Unavailable("busy", retry_after_s=0)
    answers.status("GET", "/x", busy, Retry_After="0")
    answers.plan("GET", "/x", 200, {})
    answers.status("POST", "/x", busy, Retry_After="0")
    with Hub(server) as hub:
        hub.get("/x")
        with pytest.raises(errors.Unavailable):
            hub.post("/x", {})
    assert [seen[0] for seen in answers.seen] == ["GET", "GET", "POST"]


def test_an_untrusted_certificate_is_refused_and_says_how_to_trust_it(server, answers):
    for stranger in (
        Server("x", server.url),
        Server("x", server.url, ca.generate_ca("other", datetime.now(UTC)).certificate.decode()),
    ):
        with Hub(stranger) as hub, pytest.raises(errors.Unavailable, match="CA certificate"):
            hub.get("/x")
    assert answers.seen == []


def test_another_name_is_refused(server):
    renamed = Server("x", server.url.replace("127.0.0.1", "127.0.0.2"), server.ca)
    with Hub(renamed) as hub, pytest.raises(errors.HerdsmanError, match=r"another name|cannot connect"):
        hub.get("/x")


def test_nobody_there(free_port):
    with (
        Hub(Server("x", f"https://127.0.0.1:{free_port}")) as hub,
        pytest.raises(errors.Unavailable, match="check that the hub runs"),
    ):
        hub.post("/x", {})


@pytest.fixture
def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_login_keeps_the_sign_in_private_and_says_where(server, answers, authority, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HERDSMAN_CONFIG_DIR", str(tmp_path / "settings"))
    (tmp_path / "ca").write_bytes(authority.certificate)
    (tmp_path / "password").write_text("secret words\n")
    answers.plan(
        "POST",
        "/v1/login",
        200,
        {"token": "hm_x_y", "user": "ana", "expires_at": "2026-11-23T00:00:00Z", "must_change_password": True},
    )
    assert (
        run(
            [
                "login",
                server.url,
                "--ca-file",
                str(tmp_path / "ca"),
                "--user",
                "ana",
                "--password-file",
                str(tmp_path / "password"),
            ]
        )
        == 0
    )
    shown = capsys.readouterr()
    file = tmp_path / "settings" / "config.json"
    assert shown.out == ""
    assert str(file) in shown.err
    assert "herdsman password" in shown.err
    assert "hm_x_y" not in shown.err
    assert file.stat().st_mode & 0o777 == 0o600
    assert answers.seen[0][3]["password"] == "secret words"
    assert load_settings().servers[server.url.removeprefix("https://")].token == "hm_x_y"


def test_login_without_the_ca_is_refused_before_the_password_is_sent(server, answers, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HERDSMAN_CONFIG_DIR", str(tmp_path / "settings"))
    (tmp_path / "password").write_text("secret words\n")
    assert run(["login", server.url, "--user", "ana", "--password-file", str(tmp_path / "password")]) == 1
    assert "--ca-file" in capsys.readouterr().err
    assert answers.seen == []


BINDINGS = "/apis/management.herdsman.dev/v1/roletemplatebindings"


def test_grant_creates_a_binding_that_ends_by_itself(signed_in, answers, capsys):
    answers.plan("POST", BINDINGS, 201, {})
    assert run(["grant", "--user", "ana", "--role", "cluster-member", "--cluster", "prod", "--for", "1h"]) == 0
    spec = answers.seen[0][3]["spec"]
    assert (spec["user"], spec["role"], spec["scope"]) == ("ana", "cluster-member", {"cluster": "prod"})
    left = datetime.fromisoformat(spec["notAfter"].replace("Z", "+00:00")) - datetime.now(UTC)
    assert 3500 < left.total_seconds() <= 3600
    assert "until" in capsys.readouterr().err


def _granted(answers, existing_uid: str, meant_uid: str, **spec):
    existing = {
        "metadata": {"name": "n"},
        "spec": {"principal": "local:user:1", "scope": {"cluster": "prod", "clusterUid": existing_uid}, **spec},
    }
    answers.status("POST", BINDINGS, errors.AlreadyExists("exists"))
    answers.plan(
        "POST",
        BINDINGS,
        201,
        {"spec": {"principal": "local:user:1", "scope": {"cluster": "prod", "clusterUid": meant_uid}}},
    )
    return existing


def test_granting_again_changes_only_the_end(signed_in, answers):
    from services.cli.commands.grants import binding_name

    path = f"{BINDINGS}/{binding_name({'user': 'ana'}, 'r', {'cluster': 'prod'})}"
    answers.plan("GET", path, 200, _granted(answers, "u1", "u1", notAfter="2026-01-01T00:00:00Z"))
    answers.plan("PATCH", path, 200, {})
    assert run(["grant", "--user", "ana", "--role", "r", "--cluster", "prod"]) == 0
    assert [seen[0] for seen in answers.seen] == ["POST", "GET", "POST", "PATCH"]
    assert "dryRun=All" in answers.seen[2][1]
    assert answers.seen[3][3] == {"spec": {"notAfter": None}}


@pytest.mark.parametrize(
    ("said", "patch"),
    [(["--reason", "on call"], None), ([], None), (["--reason", "week 12"], {"notAfter": None, "reason": "week 12"})],
)
def test_a_reason_is_sent_and_granting_again_without_one_keeps_it(signed_in, answers, said, patch):
    from services.cli.commands.grants import binding_name

    path = f"{BINDINGS}/{binding_name({'user': 'ana'}, 'r', {'cluster': 'prod'})}"
    answers.plan("GET", path, 200, _granted(answers, "u1", "u1", reason="on call"))
    answers.plan("PATCH", path, 200, {})
    assert run(["grant", "--user", "ana", "--role", "r", "--cluster", "prod", *said]) == 0
    assert answers.seen[0][3]["spec"].get("reason") == (said[1] if said else None)
    assert [seen[3] for seen in answers.seen[3:]] == ([{"spec": patch}] if patch else [])


def test_a_binding_of_an_earlier_cluster_of_that_name_is_replaced(signed_in, answers):
    from services.cli.commands.grants import binding_name

    path = f"{BINDINGS}/{binding_name({'user': 'ana'}, 'r', {'cluster': 'prod'})}"
    answers.plan("GET", path, 200, _granted(answers, "old", "new"))
    answers.plan("POST", BINDINGS, 201, {})
    answers.plan("DELETE", path, 200, {})
    assert run(["grant", "--user", "ana", "--role", "r", "--cluster", "prod"]) == 0
    assert [seen[0] for seen in answers.seen] == ["POST", "GET", "POST", "DELETE", "POST"]


def test_revoke_deletes_every_binding_that_says_so_and_no_other(signed_in, answers):
    def binding(name, **spec):
        return {"metadata": {"name": name}, "spec": {"role": "r", **spec}}

    answers.plan("GET", "/apis/management.herdsman.dev/v1/users/ana", 200, {"status": {"principalId": "local:user:7"}})
    answers.plan("GET", BINDINGS, 200, {"items": [
        binding("by-name", user="ana", scope={"cluster": "prod", "clusterUid": "u"}),
        binding("by-principal", principal="local:user:7", scope={"cluster": "prod"}),
        binding("elsewhere", user="ana", scope={"cluster": "test"}),
        binding("everywhere", user="ana", scope={"global": True}),
        binding("somebody", user="bob", principal="local:user:8", scope={"cluster": "prod"}),
    ]})  # fmt: skip
    for name in ("by-name", "by-principal"):
        answers.plan("DELETE", f"{BINDINGS}/{name}", 200, {})
    assert run(["revoke", "--user", "ana", "--role", "r", "--cluster", "prod"]) == 0
    assert [seen[1].rpartition("/")[2] for seen in answers.seen if seen[0] == "DELETE"] == ["by-name", "by-principal"]


def test_revoking_what_nobody_has_is_not_found(signed_in, answers):
    answers.plan("GET", "/apis/management.herdsman.dev/v1/users/ana", 200, {})
    answers.plan("GET", BINDINGS, 200, {"items": []})
    assert run(["revoke", "--user", "ana", "--role", "r", "--global"]) == 3


def test_a_user_whose_password_is_refused_is_not_left_behind(signed_in, answers, tmp_path, capsys):
    (tmp_path / "password").write_text("short")
    answers.plan("POST", "/apis/management.herdsman.dev/v1/users", 201, {"metadata": {"name": "ana", "uid": "u1"}})
    answers.status("POST", "/v1/password", errors.Invalid("at least 12 characters"))
    answers.plan("DELETE", "/apis/management.herdsman.dev/v1/users/ana", 200, {})
    assert run(["user", "create", "ana", "--password-file", str(tmp_path / "password")]) == 1
    assert "at least 12 characters" in capsys.readouterr().err
    assert answers.seen[-1][3]["preconditions"] == {"uid": "u1"}


def test_lists_are_the_tables_of_the_hub_and_page_on(signed_in, answers, capsys):
    columns = [{"name": "Name", "priority": 0}, {"name": "Phase", "priority": 0}, {"name": "Agent", "priority": 1}]
    path = "/apis/management.herdsman.dev/v1/clusters"
    answers.plan(
        "GET",
        path,
        200,
        {"columnDefinitions": columns, "rows": [{"cells": ["prod", "Active", "1"]}], "metadata": {"continue": "c"}},
    )
    answers.plan(
        "GET", path, 200, {"columnDefinitions": columns, "rows": [{"cells": ["test", None, "1"]}], "metadata": {}}
    )
    assert run(["cluster", "list"]) == 0
    assert capsys.readouterr().out == "NAME   PHASE\nprod   Active\ntest   <none>\n"
    assert "continue=c" in answers.seen[1][1]
    assert "as=Table" in answers.seen[0][2]["Accept"]


def test_deleting_waits_until_gone_and_says_what_was_removed(signed_in, answers, capsys):
    path = "/apis/management.herdsman.dev/v1/clusters"
    prod = {"metadata": {"name": "prod", "uid": "u1"}, "status": {"conditions": []}}
    last = {**prod, "status": {"conditions": [{"type": "Detached", "status": "True", "message": "removed 7 objects"}]}}
    answers.plan("GET", f"{path}/prod", 200, prod)
    answers.plan("DELETE", f"{path}/prod", 200, prod)
    lines = [{"type": "ADDED", "object": prod}, {"type": "DELETED", "object": last}]
    answers.plan("GET", path, 200, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    assert run(["cluster", "delete", "prod", "--yes"]) == 0
    assert "removed 7 objects" in capsys.readouterr().err
    assert answers.seen[1][3]["preconditions"] == {"uid": "u1"}


def test_not_found_is_three_and_denied_is_four(signed_in, answers):
    path = "/apis/management.herdsman.dev/v1/clusters/prod"
    answers.status("GET", path, errors.not_found("Cluster", "prod"))
    assert run(["cluster", "show", "prod"]) == 3
    answers.planned.clear()
    answers.status("GET", path, errors.Denied("no"))
    assert run(["cluster", "show", "prod"]) == 4
