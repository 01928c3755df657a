"""The parts of a quota: given ones stay, the rest is divided equally, and together they are never more than there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import errors
from libs.common.quantity import parse_quantity
from libs.common.resources.projects import Project
from services.project import shares
from tests.project.test_projects import ADA, running


def project(quota, *namespaces) -> Project:
    entries = [{"cluster": "east", "namespace": f"n{index}", **entry} for index, entry in enumerate(namespaces)]
    return Project.model_validate({"metadata": {"name": "shop"}, "spec": {"quota": quota, "namespaces": entries}})


def filled(made: Project, old: Project | None = None) -> list[dict[str, str]]:
    shares.fill_shares(old, made)
    return [n.share for n in made.spec.namespaces]


def test_who_gives_nothing_has_an_equal_part_of_the_rest():
    quota = {"pods": "10", "limits.cpu": "2", "requests.memory": "10Gi", "requests.storage": "100M"}
    made = project(quota, {"share": {"pods": "5"}}, {}, {})
    first, second, third = filled(made)
    assert first == {"pods": "5", "limits.cpu": "666m", "requests.memory": "3413Mi", "requests.storage": "33333333"}
    assert (
        second
        == third
        == {"pods": "2", "limits.cpu": "666m", "requests.memory": "3413Mi", "requests.storage": "33333333"}
    )
    assert made.spec.namespaces[0].equal_share == ["limits.cpu", "requests.memory", "requests.storage"]
    assert shares.check_shares(made) == []


def test_equal_parts_follow_namespaces_and_quota_and_given_ones_stay():
    one = project({"pods": "12"}, {"share": {"pods": "6"}}, {})
    assert filled(one) == [{"pods": "6"}, {"pods": "6"}]
    two = one.model_copy(deep=True)
    two.spec.namespaces.append(project({}, {}, {}, {}).spec.namespaces[2])
    assert filled(two, one) == [{"pods": "6"}, {"pods": "3"}, {"pods": "3"}]
    three = two.model_copy(deep=True)
    three.spec.quota = {"pods": "26"}
    three.spec.namespaces[1].share = {"pods": "4"}
    assert filled(three, two) == [{"pods": "6"}, {"pods": "4"}, {"pods": "16"}]
    assert three.spec.namespaces[1].equal_share == []
    four = three.model_copy(deep=True)
    four.spec.quota = {}
    filled(four, three)
    assert [c.field for c in shares.check_shares(four)] == [
        "spec.namespaces[0].share[pods]",
        "spec.namespaces[1].share[pods]",
    ]


@pytest.mark.parametrize(
    ("quota", "namespaces", "field", "why"),
    [
        ({"pods": "10"}, [{"share": {"pods": "6"}}, {"share": {"pods": "5"}}], "spec.namespaces[1].share[pods]", "have 11, and the quota is 10"),
        ({"pods": "10"}, [{"share": {"pods": "10"}}, {}], "spec.namespaces[1].share[pods]", "nothing of the quota of 10 is left"),
        ({}, [{"share": {"pods": "1"}}], "spec.namespaces[0].share[pods]", "no quota of it"),
    ],
)  # fmt: skip
async def test_more_than_there_is_is_refused_with_the_field(clock, quota, namespaces, field, why):
    async with running(clock) as (hub, writer):
        with pytest.raises(errors.Invalid, match=why) as refused:
            await hub.write(writer, ADA, "create", project(quota, *namespaces))
        assert [c.field for c in refused.value.causes] == [field]


async def test_shares_are_written_into_the_project_and_stay_as_they_are(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", project({"pods": "9"}, {}, {}, {}))
        first = await hub.get(Project, "shop")
        assert [n.share for n in first.spec.namespaces] == [{"pods": "3"}] * 3
        await hub.write(
            writer,
            ADA,
            "patch",
            "shop",
            plural="projects",
            body={"spec": {"namespaces": first.spec.to_document()["namespaces"]}},
        )
        assert (await hub.get(Project, "shop")).metadata.resource_version == first.metadata.resource_version


entries = st.lists(st.one_of(st.none(), st.integers(0, 200)), min_size=0, max_size=8)


@given(st.lists(st.tuples(st.integers(0, 1000), st.sampled_from(["", "m", "Mi"]), entries), min_size=1, max_size=4))
def test_together_they_are_never_more_than_the_quota_whatever_came_before(steps):
    old = None
    for number, suffix, given_parts in steps:
        quota = {"limits.cpu": f"{number}{suffix}"}
        new = project(
            quota, *({} if part is None else {"share": {"limits.cpu": f"{part}{suffix}"}} for part in given_parts)
        )
        if old is not None:
            for before, after in zip(old.spec.namespaces, new.spec.namespaces, strict=False):
                if not after.share:
                    after.share, after.equal_share = dict(before.share), list(before.equal_share)
        shares.fill_shares(old, new)
        again = new.model_copy(deep=True)
        shares.fill_shares(new, again)
        assert again == new
        if not shares.check_shares(new):
            total = sum(parse_quantity(n.share["limits.cpu"]).nanos for n in new.spec.namespaces)
            assert total <= parse_quantity(quota["limits.cpu"]).nanos
            assert len({n.share["limits.cpu"] for n in new.spec.namespaces if n.equal_share}) <= 1
            old = new
