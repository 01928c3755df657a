"""Letting a machine in, in its own browser or in one elsewhere: it begins and fetches without a name, a signed-in person looks and answers."""

from __future__ import annotations

from typing import Literal

from aiohttp import web
from pydantic import BaseModel, Field

from libs.common.contracts.messages import BrowserCallback, DeviceAnswer, DeviceBegin, DeviceFetch
from libs.common.contracts.methods import ANSWER_DEVICE, BEGIN_DEVICE, FETCH_DEVICE
from services.gateway.answers import answer
from services.gateway.bodies import check_object, read_body
from services.gateway.call import Call
from services.gateway.signin import parse_json_body
from services.gateway.state import State

_NO_STORE = {"Cache-Control": "no-store"}


class _Begin(BaseModel):
    description: str = Field(default="", max_length=256)
    browser: BrowserCallback | None = None


class _Fetch(BaseModel):
    device_code: str = Field(min_length=1, max_length=128)
    code: str = Field(default="", max_length=128)
    code_verifier: str = Field(default="", max_length=128)


class _Answer(BaseModel):
    user_code: str = Field(min_length=1, max_length=32)
    answer: Literal["", "approve", "deny"] = ""
    browser: bool = False


class Devices:
    def __init__(self, state: State) -> None:
        self._state = state

    async def begin(self, call: Call) -> web.StreamResponse:
        """Codes, and the page on which a person gives the short one; for a browser of that machine, the page that has it already."""
        given = parse_json_body(_Begin, check_object(await read_body(call.request)))
        request = DeviceBegin(description=given.description, client_address=call.address, browser=given.browser)
        begun = await self._state.bus.request(BEGIN_DEVICE.subject, request, BEGIN_DEVICE.reply)
        # After the "#": it reaches no log and no other site.
        place = "#device" if given.browser is None else f"#login={begun.user_code}"
        page = f"{self._state.config.public_url}/ui/{place}"
        return answer({**begun.model_dump(mode="json"), "verification_uri": page}, headers=_NO_STORE)

    async def fetch(self, call: Call) -> web.StreamResponse:
        """202 while nobody has answered, then the token, once."""
        given = parse_json_body(_Fetch, check_object(await read_body(call.request)))
        request = DeviceFetch(**given.model_dump(), client_address=call.address)
        fetched = await self._state.bus.request(FETCH_DEVICE.subject, request, FETCH_DEVICE.reply)
        if fetched.issued is None:
            return answer({}, 202, headers=_NO_STORE)
        return answer(fetched.issued.model_dump(mode="json"), headers=_NO_STORE)

    async def answer(self, call: Call) -> web.StreamResponse:
        """What asks, and (with an answer) the decision."""
        given = parse_json_body(_Answer, check_object(await read_body(call.request)))
        request = DeviceAnswer(identity=call.envelope, **given.model_dump())
        shown = await self._state.bus.request(ANSWER_DEVICE.subject, request, ANSWER_DEVICE.reply)
        return answer(shown.model_dump(mode="json"), headers=_NO_STORE)
