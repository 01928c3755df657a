"""Decisions find what is held by the place; a look at each binding, one after the other, says the same."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.access.held import NOTHING
from libs.common.access.lasting import grants_until
from libs.common.access.places import PlaceIndex, find_places
from libs.common.access.principal import cluster_group, project_group
from libs.common.resources.meta import GROUP
from tests.access import made
from tests.access.test_properties import (
    BINDINGS,
    CALLERS,
    CLUSTERS,
    PROJECTS,
    QUESTIONS,
    ROLES,
    compiled,
    rights,
)


def counting(grants, bindings, caller):
    """(role, scope) of every binding that counts for the caller now."""
    for bound in bindings:
        until, role = bound.spec.not_after, grants.roles.get(bound.spec.role)
        if bound.spec.principal in caller.principal_ids and role is not None and (until is None or until > made.BEGIN):
            yield role, bound.spec.scope


def naive_groups(grants, bindings, caller, cluster):
    found = set()
    for role, scope in counting(grants, bindings, caller):
        if role.scope == "cluster" and (scope.all or scope.cluster == cluster.name):
            found.add(cluster_group(cluster.name, role.name))
        for project in PROJECTS:
            here = cluster.name in {n.cluster for n in project.spec.namespaces}
            if role.scope == "project" and scope.project == project.name and here:
                found.add(project_group(project.name, project.uid, role.name))
    return tuple(sorted(found))


def naive_is_allowed(grants, bindings, caller, verb, plural, name, cluster, project):
    cluster = cluster or name if plural == "clusters" else cluster
    project = project or name if plural == "projects" else project
    if (
        plural == "clusters"
        and verb == "get"
        and any(naive_groups(grants, bindings, caller, c) for c in CLUSTERS if c.name == cluster)
    ):
        return True
    for role, scope in counting(grants, bindings, caller):
        in_cluster = role.scope == "cluster" and bool(cluster) and (scope.all or scope.cluster == cluster)
        in_project = role.scope == "project" and bool(project) and scope.project == project
        counts = (role.scope == "global" and scope.all) or in_cluster or in_project
        if counts and role.hub_set.allows(verb, GROUP, plural, "", name):
            return True
    return False


@settings(deadline=None)
@given(ROLES, BINDINGS)
def test_decisions_are_those_of_a_look_at_each_binding(roles, bindings):
    grants = compiled(roles, bindings)
    for caller in CALLERS:
        for cluster in CLUSTERS:
            wanted = naive_groups(grants, bindings, caller, cluster)
            assert grants.synthetic_groups(caller, cluster.name, cluster.uid) == wanted
        for question in QUESTIONS:
            verb, plural, name, cluster_name, project = question
            allowed = grants.is_allowed(caller, verb, plural, name, cluster_name, project=project)
            assert allowed == naive_is_allowed(grants, bindings, caller, *question), question


@given(ROLES, BINDINGS)
def test_what_lasts_is_decided_by_what_lasts_alone(roles, bindings):
    grants = compiled(roles, bindings)
    lasting = compiled(roles, [b for b in bindings if b.spec.not_after is None])
    for caller in CALLERS:
        assert rights(grants_until(grants, caller, bindings, None), caller) == rights(lasting, caller)


@given(st.lists(st.tuples(BINDINGS, st.sampled_from(["p", "q", ""]), st.sets(st.sampled_from("ab")))))
def test_an_index_that_is_kept_is_the_one_made_anew_and_a_view_stays_as_it_was(steps):
    index, held, projects, views = PlaceIndex(), {}, {}, []
    for bindings, project, clusters in steps:
        after = compiled([], bindings).held
        for holder in held.keys() | after.keys():
            index.put(holder, held.get(holder, NOTHING), after.get(holder, NOTHING))
        held = dict(after)
        if project:
            index.put_project(project, frozenset(clusters))
            projects[project] = frozenset(clusters)
        views.append((index.view(), plain(find_places(held, projects))))
    for view, wanted in views:
        assert plain(view) == wanted


def plain(places):
    """Comparable: the projects that somebody reaches in a cluster stand in no order."""
    clusters = {c: {h: (s.roles, sorted(s.projects)) for h, s in here.items()} for c, here in places.clusters.items()}
    return dict(places.everywhere), dict(places.selected), clusters, {p: dict(h) for p, h in places.projects.items()}
