"""What the grants find bindings by: it always says what a look at all of them would say."""

from __future__ import annotations

import random
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from libs.common.access.bindings import BindingIndex, Expiries, fact_of
from libs.common.access.grants import compile_grants
from libs.common.access.lasting import grants_until
from libs.common.resources.access import RoleTemplateBinding
from tests.access import made
from tests.access.test_live import world

ADA, BOB = made.user("ada"), made.user("bob")
ROLES = [made.role("owner", "cluster"), made.role("member", "project"), made.role("admin", "global")]
NAMES = st.sampled_from(["b1", "b2", "b3", "b4"])
MOMENTS = st.one_of(st.none(), st.integers(1, 20).map(lambda s: made.BEGIN + timedelta(seconds=s)))


@given(st.lists(st.tuples(NAMES, st.sampled_from([ADA, BOB, None]), st.sampled_from(["owner", "viewer"]))))
def test_an_index_finds_what_a_look_at_all_would_find(changes):
    index, plain = BindingIndex(), {}
    for name, who, role in changes:
        fact = None if who is None else fact_of(made.binding(who, role, cluster="east", name=name))
        touched = index.put(name, fact)
        before = plain.pop(name, None)
        assert touched == tuple(f.principal for f in (before, fact) if f is not None)
        if fact is not None:
            plain[name] = fact
    for who in (ADA, BOB):
        wanted = {f.name for f in plain.values() if f.principal == who.status.principal_id}
        assert {f.name for f in index.of_principal(who.status.principal_id)} == wanted
    for role in ("owner", "viewer"):
        assert {f.name for f in index.of_role(role)} == {f.name for f in plain.values() if f.role == role}
    assert set(index.principals()) == {f.principal for f in plain.values()}


@given(st.lists(st.one_of(st.tuples(NAMES, MOMENTS), st.integers(1, 20))))
def test_each_expiry_is_told_once_and_the_next_one_is_known(steps):
    expiries, plain = Expiries(), {}
    for step in steps:
        if isinstance(step, tuple):
            name, moment = step
            expiries.put(name, moment)
            plain.pop(name, None)
            if moment is not None:
                plain[name] = moment
        else:
            now = made.BEGIN + timedelta(seconds=step)
            stopped = {name for name, moment in plain.items() if moment <= now}
            assert set(expiries.take(now)) == stopped
            for name in stopped:
                del plain[name]
        assert expiries.next() == min(plain.values(), default=None)


def test_moments_that_are_out_of_date_do_not_pile_up():
    expiries = Expiries()
    for number in range(20_000):
        expiries.put("b", made.BEGIN + timedelta(seconds=number))
    assert len(expiries._heap) < 2_000
    assert expiries.next() == made.BEGIN + timedelta(seconds=19_999)


def test_what_lasts_is_the_same_from_an_index_and_from_a_list():
    until = made.BEGIN + timedelta(seconds=10)
    bindings = [made.binding(ADA, "owner", cluster="east", until=until), made.binding(BOB, "owner", cluster="east")]
    grants = compile_grants(ROLES, bindings, [made.cluster("east")], [ADA, BOB], made.BEGIN)
    for who in (ADA, BOB):
        for moment in (until, None):
            one, other = (
                grants_until(grants, made.caller(who), of, moment) for of in (bindings, BindingIndex(bindings))
            )
            assert one == other


def _change(rng: random.Random, clock):
    """Something to put, or the name of a binding to delete."""
    kind, name = rng.randrange(4), f"b{rng.randrange(6)}"
    if kind == 0:
        return made.project(rng.choice("pq"), *rng.sample(("east", "west", "north"), rng.randrange(3)))
    if kind == 1:
        return name
    scope = rng.choice([{"everywhere": True}, {"cluster": "east"}, {"project": "p"}])
    until = rng.choice([None, clock() + timedelta(seconds=rng.randrange(-5, 20))])
    return made.binding(rng.choice((ADA, BOB)), rng.choice(("owner", "member")), name=name, until=until, **scope)


async def test_the_kept_snapshot_is_the_one_compiled_anew_whatever_happened(clock):
    rng, bindings, projects = random.Random(11), {}, {}
    clusters = [made.cluster(name) for name in ("east", "west")]
    async with world(clock) as w:
        await w.put(ADA, BOB, *ROLES, *clusters)
        for _ in range(300):
            change = _change(rng, clock)
            if isinstance(change, str):
                if (gone := bindings.pop(change, None)) is not None:
                    await w.delete(gone)
            else:
                await w.put(change)
                (bindings if isinstance(change, RoleTemplateBinding) else projects)[change.name] = change
            if rng.random() < 0.3:
                clock.forward(rng.randrange(4))
            fresh = compile_grants(ROLES, bindings.values(), clusters, [ADA, BOB], clock(), projects.values())
            kept = w.live.current
            for part in ("held", "clusters", "users", "projects", "next_expiry"):
                assert getattr(kept, part) == getattr(fresh, part), part
            for part in ("everywhere", "selected", "projects"):
                assert getattr(kept.places, part) == getattr(fresh.places, part), part
            for who in (ADA, BOB):
                caller = made.caller(who)
                assert kept.visible_clusters(caller) == fresh.visible_clusters(caller)
                for c in clusters:
                    assert kept.synthetic_groups(caller, c.name, c.uid) == fresh.synthetic_groups(caller, c.name, c.uid)
                    assert kept.is_allowed(caller, "get", "clusters", c.name) == fresh.is_allowed(
                        caller, "get", "clusters", c.name
                    )


async def test_a_snapshot_shares_what_did_not_change_and_an_older_one_stays_as_it_was(clock):
    async with world(clock) as w:
        await w.put(ADA, *ROLES, made.cluster("east"), made.project("p", "east"))
        before = w.live.current
        await w.put(made.binding(ADA, "owner", cluster="east"))
        after = w.live.current
        assert (after.users, after.clusters, after.projects) == (before.users, before.clusters, before.projects)
        assert after.users is before.users
        assert before.held == {}
        assert after.held
        assert before.places.clusters == {}
        assert after.places.clusters.keys() == {"east"}
