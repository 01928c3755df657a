"""What a policy's status says of a cluster: never ahead of what the cluster holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from libs.common.kube.objects import content_hash
from libs.common.policies.admission import render_admission
from libs.common.policies.choice import part_of
from libs.common.resources.clusters import AppliedPart, Cluster
from libs.common.resources.meta import ObjectMeta
from libs.common.resources.policies import AdmissionPolicy
from services.authz.policy_status import DRIFT_SHOWN_S, next_change, render_status
from tests.policies.made import admission

NOW = datetime(2026, 1, 2, 3, tzinfo=UTC)


def cluster(
    policy: AdmissionPolicy | None = None, *, connected: bool = True, username: str = "agent", **part: Any
) -> Cluster:
    made = Cluster(metadata=ObjectMeta(name="edge", uid="u-edge"))
    made.status.agent.username = username
    made.status.set_condition("Connected", connected, "x", "", NOW - timedelta(hours=2))
    if policy is not None:
        hash_ = content_hash(render_admission(policy, "agent"))
        made.status.applied = [
            AppliedPart(name=part_of("AdmissionPolicy", policy.name), hash=hash_, applied_at=NOW, **part)
        ]
    return made


OLD, NEW = admission(generation=1), admission(generation=2, failurePolicy="Ignore")


@pytest.mark.parametrize(
    ("found", "state", "generation", "message"),
    [
        (cluster(NEW), "Applied", 2, ""),
        (cluster(OLD), "Pending", 0, "not taken it over yet"),
        (cluster(OLD, connected=False), "Pending", 0, "not connected since 2026-01-02T01:00:00Z"),
        (cluster(NEW, connected=False), "Applied", 2, ""),
        (cluster(None), "Pending", 0, "not taken it over yet"),
        (cluster(None, username=""), "Pending", 0, "under which name"),
        (cluster(NEW, error="compilation failed"), "Failed", 0, "compilation failed"),
        (cluster(NEW, remarks="undefined field"), "Failed", 2, "undefined field"),
        (cluster(NEW, repaired_at=NOW - timedelta(minutes=5), repaired="a Binding"), "Drifted", 2, "a Binding"),
        (cluster(NEW, repaired_at=NOW - timedelta(seconds=DRIFT_SHOWN_S), repaired="x"), "Applied", 2, ""),
    ],
)
def test_each_state_is_told_with_the_version_that_is_there(
    found: Cluster, state: str, generation: int, message: str
) -> None:
    status = render_status(NEW, [found], {}, NOW)
    (entry,) = status.clusters
    assert (entry.state, entry.generation) == (state, generation)
    assert message in entry.message
    drifted = status.condition("Drifted")
    assert drifted is not None
    assert (drifted.status == "True") == (state == "Drifted")
    again = next_change(status, NEW, {"edge": found}, NOW)
    assert (again is not None) == (state == "Drifted")


def test_the_version_that_a_cluster_had_stays_told_until_it_has_another() -> None:
    policy = OLD.model_copy(deep=True)
    policy.status = render_status(policy, [cluster(OLD)], {}, NOW)
    changed = NEW.model_copy(update={"status": policy.status})
    (entry,) = render_status(changed, [cluster(OLD, connected=False)], {}, NOW + timedelta(hours=1)).clusters
    assert (entry.state, entry.generation, entry.since) == ("Pending", 1, NOW + timedelta(hours=1))


def test_a_cluster_that_is_not_chosen_is_not_told_of() -> None:
    assert render_status(admission(clusters={"names": ["west"]}), [cluster()], {}, NOW).clusters == []


def test_a_policy_is_rendered_once_for_all_clusters_whose_agents_have_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[str] = []

    def render(policy: AdmissionPolicy, username: str) -> Any:
        rendered.append(username)
        return render_admission(policy, username)

    monkeypatch.setattr("services.authz.policy_status.render_admission", render)
    many = [cluster(NEW, username=name) for name in ["agent", "ann", "agent", "", "ann"] * 20]
    for number, one in enumerate(many):
        one.metadata.name = f"c{number}"
    states = {
        (c.status.agent.username, s.state)
        for c, s in zip(sorted(many, key=lambda c: c.name), render_status(NEW, many, {}, NOW).clusters, strict=True)
    }
    assert states == {("agent", "Applied"), ("ann", "Pending"), ("", "Pending")}
    assert sorted(rendered) == ["agent", "ann"]
