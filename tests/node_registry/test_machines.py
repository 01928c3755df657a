"""What makes two registrations one machine, and what must never: placeholders, values that others have, another cluster's word."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.resources.machine_ids import find_identifiers, is_placeholder
from libs.common.resources.nodes import NodeStatus
from services.node_registry.machines import (
    STALE_S,
    Facts,
    find_predecessor,
    is_same_machine,
    make_machine,
    render_collision,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
UUID, OTHER = "ec2a1b3c-7f10-4a57-9d5e-0a1b2c3d4e5f", "1f7a9c3e-55aa-4d21-8b9c-6e5f4d3c2b1a"
DISK, DISK2 = "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "a1b2c3d4e5f60718293a4b5c6d7e8f90"


def ids(name="n1", **status):
    return find_identifiers(name, NodeStatus.model_validate(status))


def facts(name="n1", cluster="east", uid="", boot="b1", living=True, machine="m-1", seen=NOW, **identifiers):
    return Facts(
        f"{cluster}.{name}", f"object-{cluster}-{name}", cluster, name, uid or f"uid-{name}", machine, ids(name, **identifiers), boot, living, seen,
    )  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        "", "0", "00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "03000200-0400-0500-0006-000700080009",
        "03000200-0400-0500-0006-000700080009".upper(), "Not Settable", "To Be Filled By O.E.M.", "uninitialized", "Default string", "12345678",
        "11111111-2222-1111-2222-111111111111", "FEFEFEFE-FEFE-FEFE-FEFE-FEFEFEFEFEFE",
    ],
)  # fmt: skip
def test_a_placeholder_identifies_nobody(value):
    assert is_placeholder(value)
    assert ids(systemUUID=value, machineID=value, providerID=value) == {}


def test_dashes_and_letters_make_no_other_machine():
    assert ids(systemUUID=UUID.upper()) == ids(systemUUID=UUID.replace("-", ""))


@pytest.mark.parametrize(
    "provider", ["k3s://n1", "kind://docker/lab/n1", "gce://p/eu-west1-b/n1", "rke2://N1/", "k3s://"]
)
def test_a_provider_id_that_repeats_the_name_says_nothing(provider):
    assert ids(providerID=provider) == {}
    assert ids(providerID="aws:///eu-central-1a/i-0123456789abcdef0") != {}


def test_the_strongest_identifier_that_both_have_decides():
    cloud = {"providerID": "aws:///a/i-0123456789abcdef0"}
    assert is_same_machine(ids(**cloud, machineID=DISK), ids(**cloud, machineID=DISK2))
    assert not is_same_machine(ids(systemUUID=UUID, machineID=DISK), ids(systemUUID=OTHER, machineID=DISK))
    assert is_same_machine(ids(systemUUID=UUID, machineID=DISK), ids(machineID=DISK))
    assert not is_same_machine(ids(), ids())


def test_what_a_third_node_has_too_decides_nothing():
    one = ids(machineID=DISK)
    assert is_same_machine(one, one)
    assert not is_same_machine(one, one, frozenset({("machineID", DISK)}))


def test_a_node_that_went_is_known_again_under_another_name():
    before = facts("n1", systemUUID=UUID, machineID=DISK)
    fresh = facts("n2", boot="b2", machine="", systemUUID=UUID, machineID=DISK)
    assert find_predecessor(fresh, None, [], [before], NOW) == before


def test_a_node_that_lives_beside_it_is_another_machine_unless_one_kernel_runs_both():
    before = facts("n1", machineID=DISK)
    clone, renamed = facts("n2", boot="b2", machineID=DISK), facts("n2", boot="b1", machineID=DISK)
    assert find_predecessor(clone, None, [before], [], NOW) is None
    assert find_predecessor(renamed, None, [before], [], NOW) == before
    silent = facts("n1", living=False, machineID=DISK)
    assert find_predecessor(clone, None, [silent], [], NOW) == silent


def test_no_machine_passes_from_one_cluster_to_another():
    elsewhere = facts("n1", cluster="west", living=False, systemUUID=UUID)
    assert find_predecessor(facts("n1", systemUUID=UUID), None, [elsewhere], [elsewhere], NOW) is None
    assert make_machine(facts(systemUUID=UUID), set().__contains__) != make_machine(
        facts(cluster="west", systemUUID=UUID), set().__contains__
    )


def test_another_machine_that_takes_the_name_begins_anew():
    before = facts("n1", uid="old", systemUUID=UUID)
    assert find_predecessor(facts("n1", uid="new", systemUUID=OTHER), before, [before], [], NOW) is None
    assert find_predecessor(facts("n1", uid="new", systemUUID=UUID), before, [before], [], NOW) == before


def test_a_clone_gets_an_id_of_its_own_and_always_the_same():
    fresh = facts("n2", machineID=DISK)
    base = make_machine(fresh, set().__contains__)
    other = make_machine(fresh, {base}.__contains__)
    assert other != base
    assert make_machine(fresh, {base}.__contains__) == other


def test_a_collision_names_the_clusters_own_nodes_and_never_those_of_others():
    mine = facts("n1", machineID=DISK)
    others = [mine, facts("n2", boot="b2", machineID=DISK), facts("secret", cluster="west", boot="b3", machineID=DISK)]
    colliding, reason, message = render_collision(mine, others, NOW)
    assert (colliding, reason) == (True, "ClonedIdentity")
    assert '"n2"' in message
    assert "nodes of other clusters" in message
    assert "secret" not in message
    assert "west" not in message


def test_two_names_of_one_kernel_are_told_apart_from_clones():
    mine, twin = facts("n1", systemUUID=UUID), facts("n2", systemUUID=UUID)
    assert render_collision(mine, [twin], NOW)[1] == "SameMachine"


def test_nodes_that_are_not_heard_of_collide_with_nobody():
    mine = facts("n1", machineID=DISK)
    late = NOW - timedelta(seconds=STALE_S)
    for other in (facts("n2", living=False, machineID=DISK), facts("n2", seen=late, machineID=DISK)):
        assert render_collision(mine, [other], NOW)[0] is False


KNOWN = st.sampled_from([None, UUID, OTHER])


@given(st.lists(st.tuples(st.integers(0, 5), KNOWN, KNOWN, st.booleans()), max_size=6), KNOWN, KNOWN)
def test_a_predecessor_shares_an_identifier_is_of_the_cluster_and_has_a_machine(before, system, machine):
    fresh = facts("fresh", boot="fresh", machine="", systemUUID=system or "", machineID=machine or "")
    made = [
        facts(f"n{n}", boot=f"b{n}", living=living, systemUUID=s or "", machineID=m or "") for n, s, m, living in before
    ]
    for there, gone in ((made, []), ([], made)):
        found = find_predecessor(fresh, None, there, gone, NOW)
        if found is not None:
            assert set(found.identifiers) & set(fresh.identifiers)
            assert found.machine
            assert found in gone or not found.is_living(NOW)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["east", "west"]), st.sampled_from([DISK, DISK2])), max_size=8
    )
)
def test_collisions_are_mutual(nodes):
    made = {f"{c}.n{n}": facts(f"n{n}", cluster=c, boot=f"{c}{n}", machineID=d) for n, c, d in nodes}
    colliding = {name for name, one in made.items() if render_collision(one, made.values(), NOW)[0]}
    for one in made.values():
        alike = [o for o in made.values() if o.name != one.name and o.ids == one.ids]
        assert (one.name in colliding) == bool(alike)
