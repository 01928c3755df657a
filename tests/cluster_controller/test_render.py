"""The desired set: what it holds is written out in a golden file; it depends on roles and the cluster's name alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.access.roles import resolve_roles
from libs.common.contracts.messages import DesiredPart
from libs.common.kube.objects import content_hash, set_hash
from libs.common.resources.access import PolicyRule, RoleTemplate
from services.agent.owned import find_refusal
from services.cluster_controller.render import render_desired, render_roles, select_desired
from tests.cluster_controller.made import ROLES, role

GOLDEN = Path(__file__).with_name("golden_roles.yaml")

rules = st.builds(
    PolicyRule,
    verbs=st.lists(st.sampled_from(["get", "list", "*"]), min_size=1, max_size=2),
    api_groups=st.lists(st.sampled_from(["", "apps"]), max_size=2),
    resources=st.lists(st.sampled_from(["pods", "deployments", "*"]), max_size=2),
    resource_names=st.lists(st.sampled_from(["a"]), max_size=1),
    non_resource_urls=st.lists(st.sampled_from(["/healthz", "/metrics"]), max_size=2),
)
templates = st.lists(
    st.builds(lambda n, s, r: role(n, s, *r), st.sampled_from("abcdef"), st.sampled_from(["global", "cluster", "project"]), st.lists(rules, max_size=3)),
    max_size=6, unique_by=lambda t: t.name,
)  # fmt: skip


def test_rendered_roles_are_as_written_down() -> None:
    extra = role(
        "odd", "cluster", PolicyRule(verbs=["get"], api_groups=[""], resources=["pods"], non_resource_urls=["/metrics"])
    )
    extra.spec.inherits = ["cluster-viewer"]
    rendered = render_roles(resolve_roles([*ROLES, extra]), "edge")
    assert rendered == yaml.safe_load(GOLDEN.read_text()), yaml.safe_dump(rendered, sort_keys=False)


@given(templates, st.randoms())
def test_the_set_does_not_depend_on_the_order_of_role_templates(made: list[RoleTemplate], random: Any) -> None:
    shuffled = list(made)
    random.shuffle(shuffled)
    assert render_desired(resolve_roles(shuffled), "edge") == render_desired(resolve_roles(made), "edge")


@given(templates)
def test_the_agent_refuses_nothing_of_what_the_hub_renders(made: list[RoleTemplate]) -> None:
    for document in render_roles(resolve_roles(made), "edge"):
        assert find_refusal(document) == ""


@given(templates)
def test_every_rule_is_one_that_an_api_server_accepts(made: list[RoleTemplate]) -> None:
    for document in render_roles(resolve_roles(made), "edge"):
        for rule in document.get("rules", ()):
            assert rule["verbs"]
            assert bool(rule.get("resources")) == bool(rule.get("apiGroups"))
            assert bool(rule.get("nonResourceURLs")) != bool(rule.get("resources"))


def test_two_clusters_share_no_group() -> None:
    def groups(cluster: str) -> set[str]:
        return {s["name"] for o in render_roles(resolve_roles(ROLES), cluster) for s in o.get("subjects", ())}

    own = {"herdsman:hub:namespaces"}
    assert groups("a") & groups("b") == own, "of which nobody but the hub itself ever is a member"
    assert groups("a") - own == {"herdsman:cluster:a:cluster-owner", "herdsman:cluster:a:cluster-viewer"}


def test_a_role_being_deleted_is_not_rendered() -> None:
    gone = role("gone")
    gone.metadata.deletion_timestamp = datetime(2026, 1, 1, tzinfo=UTC)
    assert render_roles(resolve_roles([gone]), "edge") == render_roles({}, "edge")


@given(st.lists(st.integers(1, 400), max_size=12), st.integers(10, 2000))
@settings(max_examples=60)
def test_an_agent_that_asks_until_nothing_differs_ends_with_the_whole_set(sizes: list[int], limit: int) -> None:
    parts = []
    for number, size in enumerate(sizes):
        objects = [{"kind": "X", "text": "x" * size}]
        parts.append(DesiredPart(name=f"p{number}", hash=content_hash(objects), objects=objects))
    have: dict[str, str] = {}
    for _ in range(len(sizes) + 1):
        answer = select_desired(parts, have, limit)
        have.update({p.name: p.hash for p in answer.parts})
        if not answer.parts:
            break
    assert have == {p.name: p.hash for p in parts}
    assert set_hash(have) == answer.hash
