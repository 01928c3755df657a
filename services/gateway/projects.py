"""Namespaces and projects beyond what objects say by themselves. JSON in, JSON out; the project service decides who may."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, Field

from libs.common.contracts.messages import NamespaceMove
from libs.common.contracts.methods import MOVE_NAMESPACE
from services.gateway.answers import answer
from services.gateway.bodies import check_object, read_body
from services.gateway.call import Call
from services.gateway.signin import parse_json_body
from services.gateway.state import State

MOVE_S = 15.0


class _Move(BaseModel):
    cluster: str = Field(min_length=1, max_length=63)
    namespace: str = Field(min_length=1, max_length=63)
    source: str = Field(default="", max_length=63)


class Projects:
    def __init__(self, state: State) -> None:
        self._state = state

    async def move(self, call: Call) -> web.StreamResponse:
        """`{"cluster", "namespace", "source"?}` into the project of the path. Answers both projects, as `source` and `target`."""
        given = parse_json_body(_Move, check_object(await read_body(call.request)))
        request = NamespaceMove(
            identity=call.envelope, request_id=call.request_id, cluster=given.cluster, namespace=given.namespace,
            project=call.path("name")[:63], source=given.source,
        )  # fmt: skip
        moved = await self._state.bus.request(MOVE_NAMESPACE.subject, request, MOVE_NAMESPACE.reply, timeout_s=MOVE_S)
        return answer(moved.model_dump(mode="json"))
