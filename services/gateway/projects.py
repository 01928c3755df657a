"""Namespaces and projects beyond what objects say by themselves. JSON in, JSON out; the project service decides who may."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, Field

from libs.common.contracts.messages import NamespaceCreate, NamespaceMove, ProjectMake
from libs.common.contracts.methods import CREATE_NAMESPACE, MAKE_PROJECT, MOVE_NAMESPACE
from services.gateway.answers import answer
from services.gateway.bodies import check_object, read_body
from services.gateway.call import Call
from services.gateway.signin import parse_json_body
from services.gateway.state import State

ANSWER_S = 20.0
"""Making one waits for the cluster for up to ten."""


class _Create(BaseModel):
    cluster: str = Field(min_length=1, max_length=63)
    namespace: str = Field(min_length=1, max_length=63)


class _Move(_Create):
    source: str = Field(default="", max_length=63)


class _Make(BaseModel):
    name: str = Field(min_length=1, max_length=63)
    displayName: str = Field(default="", max_length=256)  # noqa: N815 - as documents have it
    description: str = Field(default="", max_length=4096)


class Projects:
    def __init__(self, state: State) -> None:
        self._state = state

    async def make(self, call: Call) -> web.StreamResponse:
        """`{"name", "displayName"?, "description"?}` made from the template of the path. Answers the project."""
        given = parse_json_body(_Make, check_object(await read_body(call.request)))
        request = ProjectMake(
            identity=call.envelope, request_id=call.request_id, template=call.path("name")[:253], name=given.name,
            display_name=given.displayName, description=given.description,
        )  # fmt: skip
        made = await self._state.bus.request(MAKE_PROJECT.subject, request, MAKE_PROJECT.reply, timeout_s=ANSWER_S)
        return answer(made.document, 201)

    async def create(self, call: Call) -> web.StreamResponse:
        """`{"cluster", "namespace"}` made in the project of the path. 201 with its uid when all is applied there, else 202 with `pending`."""
        given = parse_json_body(_Create, check_object(await read_body(call.request)))
        request = NamespaceCreate(
            identity=call.envelope, request_id=call.request_id, cluster=given.cluster, namespace=given.namespace,
            project=call.path("name")[:63],
        )  # fmt: skip
        made = await self._state.bus.request(
            CREATE_NAMESPACE.subject, request, CREATE_NAMESPACE.reply, timeout_s=ANSWER_S
        )
        return answer(made.model_dump(mode="json"), 201 if made.uid else 202)

    async def move(self, call: Call) -> web.StreamResponse:
        """`{"cluster", "namespace", "source"?}` into the project of the path. Answers both projects, as `source` and `target`."""
        given = parse_json_body(_Move, check_object(await read_body(call.request)))
        request = NamespaceMove(
            identity=call.envelope, request_id=call.request_id, cluster=given.cluster, namespace=given.namespace,
            project=call.path("name")[:63], source=given.source,
        )  # fmt: skip
        moved = await self._state.bus.request(MOVE_NAMESPACE.subject, request, MOVE_NAMESPACE.reply, timeout_s=ANSWER_S)
        return answer(moved.model_dump(mode="json"))
