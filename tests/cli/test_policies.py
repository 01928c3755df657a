"""`herdsman policy`: what clusters say of policies is shown as text and steers no terminal."""

from __future__ import annotations

from services.cli.main import run

API = "/apis/management.herdsman.dev/v1"
STEERING = "\x1b]0;owned\x07\r\x9b2J"


def plan(answers):
    status = {
        "clusters": [{"name": "west", "state": "Failed", "message": f"west{STEERING}", "since": "2026-01-01T00:00:00Z"}]
    }
    policy = {
        "kind": "AdmissionPolicy", "metadata": {"name": "teams", "generation": 1, "uid": "u"},
        "spec": {"stage": "Audit", "description": f"what{STEERING}"}, "status": status,
    }  # fmt: skip
    told = {"looked": 1, "violations": 1, "message": f"east{STEERING}", "offenders": [{"name": f"pod{STEERING}"}]}
    trial = {"spec": {"cluster": "east"}, "status": told}
    answers.plan("GET", f"{API}/admissionpolicies/teams", 200, policy)
    answers.plan(
        "GET", f"{API}/podsecuritytemplates/teams", 404, {"kind": "Status", "reason": "NotFound", "message": "none"}
    )
    answers.plan("GET", f"{API}/policytrials", 200, {"items": [trial]})


def test_what_clusters_say_of_a_policy_steers_no_terminal(signed_in, answers, capsys):
    for words in (["policy", "trial", "teams"], ["policy", "show", "teams"]):
        plan(answers)
        assert run(words) == 0
        said = capsys.readouterr().out
        assert "west" in said
        assert not set(said) & set("\x1b\x07\r\x9b"), words
