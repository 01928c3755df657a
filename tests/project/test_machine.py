"""Any sequence of what people and clusters do to projects, some of it at the same moment: what must hold after each step.

Everybody writes through the real writer and mover, each with copies that may be behind, as replicas of the service do.
"""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from libs.common import errors
from libs.common.access.rules import RuleSet
from libs.common.contracts.messages import NamespaceMove
from libs.common.quantity import parse_quantity
from libs.common.resources.access import PolicyRule
from libs.common.resources.projects import Project
from tests.access import made
from tests.access.hub import Hub, running_hub
from tests.project.test_moves import mover
from tests.project.test_projects import reconciler, strategy
from tests.project.test_rights import HAND, built_in

ADA, BOB, EVE = (made.user(name) for name in ("ada", "bob", "eve"))
PEOPLE = (ADA, BOB, EVE)
USHER = made.role(
    "usher", "project", hub=[made.hub_rule("get update patch", "projects"), made.hub_rule("create update", "projects/namespaces")]
)  # fmt: skip
CLUSTERS, NAMESPACES, PROJECTS = ("east", "west"), ("a", "b", "c"), ("one", "two", "three")
PLACES = [(c, n) for c in CLUSTERS for n in NAMESPACES]
Rights = dict[tuple[str, tuple[str, str]], list[PolicyRule]]

people = st.sampled_from(PEOPLE)
places = st.sampled_from(PLACES)
names = st.sampled_from(PROJECTS)
pods = st.sampled_from(["", "1", "4", "7"])


class Steps(RuleBasedStateMachine):
    """Ada owns all. Bob owns cluster east and all projects. Eve may change all objects, and has rights inside of project two alone."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.lives = 0
        self.ready, self.over = asyncio.Event(), asyncio.Event()
        self.hub: Hub
        self.holder = self.loop.create_task(self._hold())
        self.do(self.ready.wait())

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    async def _hold(self) -> None:
        async with running_hub(lambda: made.BEGIN) as hub:
            await hub.put(*PEOPLE, HAND, USHER, *built_in(), *(made.cluster(c) for c in CLUSTERS))
            await hub.put(
                made.binding(ADA, "admin", everywhere=True), made.binding(ADA, "cluster-owner", everywhere=True),
                made.binding(BOB, "cluster-owner", cluster="east"), made.binding(EVE, "hand", everywhere=True),
            )  # fmt: skip
            self.hub = hub
            self.ready.set()
            await self.over.wait()

    def teardown(self) -> None:
        self.over.set()
        self.do(self.holder)
        self.loop.close()

    @initialize()
    def begin(self) -> None:
        for name in PROJECTS:
            self.do(self._create(ADA, name, []))

    # ── what people do ──

    async def _create(self, who: Any, name: str, entries: list[dict[str, Any]]) -> None:
        body = Project.model_validate({"metadata": {"name": name}, "spec": {"namespaces": entries}})
        await self.hub.write(self._writer(), who, "create", body)
        for member in (BOB, EVE):
            if self.hub.informers["roletemplatebindings"].get(f"roletemplatebindings.{member.name}-{name}") is None:
                role = "usher" if member is EVE and name != "two" else "project-owner"
                await self.hub.put(made.binding(member, role, name=f"{member.name}-{name}", project=name))

    async def _put(self, who: Any, name: str, place: tuple[str, str], create: bool) -> None:
        stored = await self.hub.get(Project, name)
        entries = [n.to_document() for n in stored.spec.namespaces]
        entries.append({"cluster": place[0], "namespace": place[1], "create": create})
        await self._patch(who, name, {"namespaces": entries}, stored)

    async def _take(self, who: Any, name: str, place: tuple[str, str]) -> None:
        stored = await self.hub.get(Project, name)
        entries = [n.to_document() for n in stored.spec.namespaces if (n.cluster, n.namespace) != place]
        await self._patch(who, name, {"namespaces": entries}, stored)

    async def _patch(self, who: Any, name: str, spec: dict[str, Any], read: Project | None = None) -> None:
        body: dict[str, Any] = {"spec": spec}
        if read is not None:
            body["metadata"] = {"resourceVersion": read.metadata.resource_version}
        await self.hub.write(self._writer(), who, "patch", name, plural="projects", body=body)

    async def _move(self, who: Any, place: tuple[str, str], target: str) -> None:
        request = NamespaceMove(identity=self.hub.envelope(who), cluster=place[0], namespace=place[1], project=target)
        await mover(self.hub).handle(request)

    def _writer(self) -> Any:
        return self.hub.writer("project", {"projects": strategy(self.hub)})

    def attempt(self, who: Any, *works: Any) -> None:
        """Do all at once; what is refused is refused. Nobody gains what the one who did it lacked."""
        before = self.rights()
        held = {(n.cluster, n.namespace) for p in self.stored() for n in p.spec.namespaces}

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*works, return_exceptions=True)

        for outcome in self.do(all_of_them()):
            if isinstance(outcome, BaseException) and not isinstance(outcome, errors.HerdsmanError):
                raise outcome
        self.do(self.hub.settle())
        own = {place: before[who.name, place] for place in PLACES}
        for (person, place), rights in self.rights().items():
            gained = RuleSet(before[person, place]).find_lacking(rights)
            if gained and not (self.is_made(place) and place not in held):
                assert not RuleSet(own[place]).find_lacking(rights), f"{who.name} gave {person} {gained} in {place}"

    @rule(who=people, name=names, place=places)
    def adopt(self, who: Any, name: str, place: tuple[str, str]) -> None:
        self.attempt(who, self._put(who, name, place, False))

    @rule(who=people, name=names, place=places)
    def make(self, who: Any, name: str, place: tuple[str, str]) -> None:
        self.attempt(who, self._put(who, name, place, True))

    @rule(who=people, name=names, place=places)
    def take_out(self, who: Any, name: str, place: tuple[str, str]) -> None:
        self.attempt(who, self._take(who, name, place))

    @rule(who=people, place=places, name=names)
    def move(self, who: Any, place: tuple[str, str], name: str) -> None:
        self.attempt(who, self._move(who, place, name))

    @rule(who=people, place=places, first=names, second=names, third=names)
    def all_at_once(self, who: Any, place: tuple[str, str], first: str, second: str, third: str) -> None:
        self.attempt(
            who, self._move(who, place, first), self._put(who, second, place, False), self._move(who, place, third),
            self._take(who, first, place), reconciler(self.hub).reconcile(second),
        )  # fmt: skip

    @rule(who=people, place=places)
    def three_take_one_namespace(self, who: Any, place: tuple[str, str]) -> None:
        self.attempt(who, *(self._put(who, name, place, False) for name in PROJECTS))

    @rule(who=people, name=names, amount=pods)
    def limit(self, who: Any, name: str, amount: str) -> None:
        self.attempt(who, self._patch(who, name, {"quota": {"pods": amount or None}}))

    @rule(who=people, name=names)
    def delete(self, who: Any, name: str) -> None:
        self.attempt(who, self.hub.write(self._writer(), who, "delete", name, plural="projects"))

    @rule(name=names, place=places)
    def make_again(self, name: str, place: tuple[str, str]) -> None:
        self.attempt(ADA, self._create(ADA, name, [{"cluster": place[0], "namespace": place[1]}]))

    @rule(cluster=st.sampled_from(CLUSTERS))
    def a_cluster_goes_and_another_of_its_name_comes(self, cluster: str) -> None:
        self.do(self.hub.delete(made.cluster(cluster)))
        self.lives += 1
        self.do(self.hub.put(made.cluster(cluster, f"{cluster}-{self.lives}")))
        for name in PROJECTS:
            self.do(reconciler(self.hub).reconcile(name))
        self.do(self.hub.settle())
        assert not any(n.cluster == cluster for p in self.stored() for n in p.spec.namespaces)

    # ── what holds ──

    def stored(self) -> list[Project]:
        async def read() -> list[Project]:
            found = []
            for name in PROJECTS:
                try:
                    found.append(await self.hub.get(Project, name))
                except errors.NotFound:
                    continue
            return found

        return list(self.do(read()))

    def is_made(self, place: tuple[str, str]) -> bool:
        """Whether the hub makes it where there is none: then nobody's things are in it."""
        return any(n.create for p in self.stored() for n in p.spec.namespaces if (n.cluster, n.namespace) == place)

    def rights(self) -> Rights:
        """What each person may do in each namespace, by roles in its cluster and in its project."""
        grants, found = self.hub.live.current, {}
        holder = {(n.cluster, n.namespace): p.name for p in self.stored() for n in p.spec.namespaces}
        for person in PEOPLE:
            held = grants._held(made.caller(person))
            for place in PLACES:
                roles = list(grants.roles_in_cluster(held, place[0]))
                if place in holder:
                    roles += grants.roles_in_project(held, holder[place])
                found[person.name, place] = [r for role in roles for r in role.rules]
        return found

    @invariant()
    def a_namespace_is_in_one_project_at_most(self) -> None:
        if not self.ready.is_set():
            return
        listed = [(n.cluster, n.namespace) for p in self.stored() for n in p.spec.namespaces]
        assert len(listed) == len(set(listed))

    @invariant()
    def shares_are_no_more_than_the_quota(self) -> None:
        for project in self.stored():
            for resource, text in project.spec.quota.items():
                shares = [parse_quantity(n.share[resource]).nanos for n in project.spec.namespaces]
                assert sum(shares) <= parse_quantity(text).nanos


Steps.TestCase.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
TestSteps = Steps.TestCase
