"""A second factor for one's own account: begin, confirm, remove. JSON in, JSON out; what is answered is seen once."""

from __future__ import annotations

from urllib.parse import urlsplit

from aiohttp import web
from pydantic import BaseModel, Field

from libs.common.contracts.messages import SecondFactorBegin, SecondFactorConfirm, SecondFactorRemove
from libs.common.contracts.methods import BEGIN_SECOND_FACTOR, CONFIRM_SECOND_FACTOR, REMOVE_SECOND_FACTOR
from services.gateway.answers import answer
from services.gateway.bodies import check_object, read_body
from services.gateway.call import Call
from services.gateway.qr import render_qr
from services.gateway.signin import parse_json_body
from services.gateway.state import State

_NO_STORE = {"Cache-Control": "no-store"}


class _Begin(BaseModel):
    password: str = Field(min_length=1, max_length=1024)


class _Confirm(_Begin):
    code: str = Field(min_length=1, max_length=64)


class _Remove(BaseModel):
    user: str = Field(default="", max_length=253)
    password: str = Field(default="", max_length=1024)
    code: str = Field(default="", max_length=64)


class SecondFactor:
    def __init__(self, state: State) -> None:
        self._state = state

    async def begin(self, call: Call) -> web.StreamResponse:
        """A secret for a device; the address that it reads as a picture, too, and that picture as rows of 0 and 1."""
        given = parse_json_body(_Begin, check_object(await read_body(call.request)))
        hub = f"Herdsman {urlsplit(self._state.config.public_url).hostname or ''}".strip()[:64]
        request = SecondFactorBegin(identity=call.envelope, password=given.password, hub=hub)
        begun = await self._state.bus.request(
            BEGIN_SECOND_FACTOR.subject, request, BEGIN_SECOND_FACTOR.reply, timeout_s=10
        )
        return answer({**begun.model_dump(mode="json"), "qr": render_qr(begun.uri)}, 201, headers=_NO_STORE)

    async def confirm(self, call: Call) -> web.StreamResponse:
        """With a code that the device shows. Answers the recovery codes."""
        given = parse_json_body(_Confirm, check_object(await read_body(call.request)))
        request = SecondFactorConfirm(identity=call.envelope, password=given.password, code=given.code)
        codes = await self._state.bus.request(
            CONFIRM_SECOND_FACTOR.subject, request, CONFIRM_SECOND_FACTOR.reply, timeout_s=10
        )
        return answer(codes.model_dump(mode="json"), headers=_NO_STORE)

    async def remove(self, call: Call) -> web.StreamResponse:
        """One's own with password and code, or another person's."""
        given = parse_json_body(_Remove, check_object(await read_body(call.request)))
        request = SecondFactorRemove(identity=call.envelope, user=given.user, password=given.password, code=given.code)
        await self._state.bus.request(REMOVE_SECOND_FACTOR.subject, request, REMOVE_SECOND_FACTOR.reply, timeout_s=10)
        return answer({})
