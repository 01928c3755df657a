"""Nobody gives what they do not hold: over generated roles, bindings, labels and sequences of writes, on the hub and inside clusters.

The writes go through the owners' own strategies; what people can do is asked of the snapshot, and inside of clusters worked out as these do it: from
the groups that the front door would name, and the rules that are rendered for each of them.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common import errors
from libs.common.access.grants import compile_grants
from libs.common.access.principal import cluster_group, project_group
from libs.common.resources.access import RoleTemplate
from services.authz.binding_strategy import BindingStrategy
from services.authz.strategies import RoleTemplateStrategy
from services.cluster_controller.strategies import ClusterStrategy
from tests.access import made
from tests.access.hub import running_hub
from tests.conftest import Clock

PEOPLE = {name: made.user(name) for name in ("ada", "bob", "eve")}
CALLERS = {name: made.caller(person) for name, person in PEOPLE.items()}
NAMESPACES = {"p": ("a",), "q": ("a", "b")}
PROJECTS = [made.project(name, *clusters) for name, clusters in NAMESPACES.items()]
CLUSTERS = [made.cluster("a", env="dev"), made.cluster("b", env="prod")]
KEEPER = made.role(
    "keeper",
    "global",
    hub=[made.hub_rule("*", "roletemplatebindings roletemplates"), made.hub_rule("get update patch", "clusters")],
)
ROLE_NAMES = {"global-1": "global", "cluster-1": "cluster", "cluster-2": "cluster", "project-1": "project"}
VERBS, RESOURCES, PLURALS = (
    ("get", "list", "delete"),
    ("pods", "secrets"),
    ("nodes", "users", "projects", "roletemplatebindings"),
)
LABELS = ({"env": "dev"}, {"env": "prod"}, {"env": "dev", "zone": "eu"})
PLACES = (None, "other", "p", "q")
"""Where in a cluster: cluster-wide, in a namespace of no project, in one of a project."""

_rule = st.builds(made.rule, st.sampled_from([*VERBS, "*"]), st.sampled_from([*RESOURCES, "*"]))
_hub_rule = st.builds(made.hub_rule, st.sampled_from([*VERBS, "*"]), st.sampled_from([*PLURALS, "*"]))
_rights = st.fixed_dictionaries({"rules": st.lists(_rule, max_size=2), "hub": st.lists(_hub_rule, max_size=1)})
_roles = st.fixed_dictionaries(dict.fromkeys(ROLE_NAMES, _rights))
_labels = st.sampled_from(LABELS)
_scopes = {
    "global": [{"everywhere": True}], "project": [{"project": "p"}, {"project": "q"}],
    "cluster": [{"everywhere": True}, {"cluster": "a"}, {"cluster": "b"}, *({"labels": labels} for labels in LABELS)],
}  # fmt: skip
_who, _role_name = st.sampled_from(sorted(PEOPLE)), st.sampled_from(sorted(ROLE_NAMES))
_given = st.sampled_from([(name, scope) for name, kind in ROLE_NAMES.items() for scope in _scopes[kind]])
"""A role, and where."""
_bound = st.tuples(_who, _given, st.sampled_from([None, None, 5, 50]))
_step = st.one_of(
    st.tuples(st.just("bind"), _who, _bound),
    st.tuples(st.just("bind"), _who, _bound),
    st.tuples(st.just("unbind"), _who, st.integers(1, 6)),
    st.tuples(st.just("edit"), _who, st.tuples(_role_name, _rights, st.booleans())),
    st.tuples(st.just("label"), _who, st.tuples(st.sampled_from(["a", "b"]), _labels)),
    st.tuples(st.just("wait"), _who, st.sampled_from([1, 10])),
)


def held(grants, name) -> set[tuple]:
    """Everything that can be asked about somebody, on the hub and in clusters."""
    caller = CALLERS[name]
    found: set[tuple] = set()
    for verb in VERBS:
        for plural in PLURALS:
            for cluster, project in (("", ""), ("a", ""), ("b", ""), ("", "p"), ("", "q")):
                if grants.is_allowed(
                    caller, verb, plural, "x" if plural != "projects" else project or "x", cluster, project=project
                ):
                    found.add(("hub", verb, plural, cluster, project))
    return found | inside(grants, caller)


def inside(grants, caller) -> set[tuple]:
    """As the clusters judge it: each group is bound to the rules of its role, everywhere or in its project's namespaces."""
    found = set()
    for cluster in CLUSTERS:
        groups = set(grants.synthetic_groups(caller, cluster.name, cluster.uid))
        for role in grants.roles.values():
            places = set()
            if cluster_group(cluster.name, role.name) in groups:
                places |= set(PLACES)
            places |= {p.name for p in PROJECTS if project_group(p.name, p.uid, role.name) in groups}
            found |= {
                (cluster.name, place, verb, resource)
                for verb in VERBS for resource in RESOURCES if role.rule_set.allows(verb, "", resource)
                for place in places if place not in NAMESPACES or cluster.name in NAMESPACES[place]
            }  # fmt: skip
    return found


class Machine:
    """One hub in memory; each step is somebody's write, and is refused or counts."""

    def __init__(self, hub, clock) -> None:
        self.hub, self.clock, self.number = hub, clock, 0
        self.bindings = hub.writer(
            "authz", {"roletemplatebindings": BindingStrategy(hub.objects(RoleTemplate), hub.live)}
        )
        self.roles = hub.writer(
            "authz", {"roletemplates": RoleTemplateStrategy(hub.objects(RoleTemplate), hub.live.bindings)}
        )
        self.clusters = hub.writer("cluster_controller", {"clusters": ClusterStrategy(hub.live.bindings)})

    def all(self) -> dict[str, set[tuple]]:
        grants = self.hub.live.current
        return {name: held(grants, name) for name in PEOPLE}

    def binding(self, who, what, until):
        self.number += 1
        role, scope = what
        moment = until and self.clock() + timedelta(seconds=until)
        return made.binding(PEOPLE[who], role, name=f"b{self.number}", until=moment, created=self.clock(), **scope)

    async def step(self, kind, who, what) -> None:
        actor = PEOPLE[who]
        if kind == "wait":
            self.clock.forward(what)
        elif kind == "bind":
            binding = self.binding(*what)
            binding.spec.user = what[0]
            await self.hub.write(self.bindings, actor, "create", binding)
        elif kind == "unbind":
            await self.hub.write(self.bindings, actor, "delete", f"b{what}", plural="roletemplatebindings")
        elif kind == "edit":
            name, rights, inherits = what
            body = {"rules": rights["rules"] if ROLE_NAMES[name] != "global" else [], "hubRules": rights["hub"]}
            if name == "cluster-1":
                body["inherits"] = ["cluster-2"] if inherits else []
            await self.hub.write(self.roles, actor, "patch", name, plural="roletemplates", body={"spec": body})
        else:
            labels = {"env": None, "zone": None, **what[1]}
            await self.hub.write(
                self.clusters, actor, "patch", what[0], plural="clusters", body={"metadata": {"labels": labels}}
            )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_roles, st.lists(_bound, min_size=2, max_size=6), st.lists(_step, min_size=2, max_size=8))
def test_whatever_is_written_nobody_gains_what_the_writer_did_not_hold(roles, bound, steps):
    async def run() -> None:
        clock = Clock()
        async with running_hub(clock) as hub:
            templates = [
                made.role(name, scope, rules=roles[name]["rules"] if scope != "global" else [], hub=roles[name]["hub"])
                for name, scope in ROLE_NAMES.items()
            ]
            await hub.put(*PEOPLE.values(), KEEPER, *templates, *CLUSTERS, *PROJECTS)
            machine = Machine(hub, clock)
            for name, person in PEOPLE.items():
                await hub.put(made.binding(person, "keeper", everywhere=True, name=f"keeper-{name}"))
            for each in bound:
                await hub.put(machine.binding(*each))
            for kind, who, what in steps:
                before = machine.all()
                try:
                    await machine.step(kind, who, what)
                except (errors.Denied, errors.Invalid, errors.NotFound, errors.Conflict):
                    assert machine.all() == before
                    continue
                gave = set() if kind == "wait" else before[who]
                for name, after in machine.all().items():
                    assert after - before[name] <= gave, (kind, who, what, name)

    asyncio.run(run())


@settings(max_examples=200)
@given(_roles, st.lists(_bound, max_size=6), _given)
def test_who_covers_a_role_gains_nothing_inside_clusters_by_receiving_it(roles, bound, wanted):
    role_name, scope = wanted
    templates = [
        made.role(name, kind, rules=roles[name]["rules"], hub=roles[name]["hub"]) for name, kind in ROLE_NAMES.items()
    ]
    bindings = [
        made.binding(PEOPLE[who], role, name=f"b{i}", **where) for i, (who, (role, where), _) in enumerate(bound)
    ]

    def compiled(*more):
        return compile_grants(templates, [*bindings, *more], CLUSTERS, PEOPLE.values(), made.BEGIN, PROJECTS)

    grants = compiled()
    role = next(t for t in templates if t.name == role_name)
    place = made.binding(PEOPLE["ada"], role_name, **scope).spec.scope
    for name, person in PEOPLE.items():
        if not grants.covers(CALLERS[name], role, place):
            received = compiled(made.binding(person, role_name, name="extra", **scope))
            assert held(received, name) <= held(grants, name)


def test_the_probe_sees_what_is_given_inside_clusters():
    """The properties above would hold of a probe that sees nothing."""
    role = made.role("project-1", "project", rules=[made.rule("get", "secrets")])
    bindings = [made.binding(PEOPLE["ada"], "project-1", project="q")]
    grants = compile_grants([role], bindings, CLUSTERS, PEOPLE.values(), made.BEGIN, PROJECTS)
    assert inside(grants, CALLERS["ada"]) == {("a", "q", "get", "secrets"), ("b", "q", "get", "secrets")}
