"""Users and groups of all providers, to give roles to; and a try of one provider. JSON; identity decides who may ask."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, Field

from libs.common import errors
from libs.common.contracts.messages import PrincipalSearch, ProviderTest
from libs.common.contracts.methods import SEARCH_PRINCIPALS, TEST_PROVIDER
from services.gateway.answers import answer
from services.gateway.bodies import check_object, read_body
from services.gateway.call import Call
from services.gateway.signin import SIGN_IN_S, parse_json_body
from services.gateway.state import State


class _Test(BaseModel):
    user: str = Field(default="", max_length=256)
    password: str = Field(default="", max_length=1024)


class Principals:
    def __init__(self, state: State) -> None:
        self._state = state

    async def search(self, call: Call) -> web.StreamResponse:
        """`?text=…&kind=user|group&provider=…&limit=…`."""
        kind = call.query("kind")
        text = call.query("text")
        if kind not in ("", "user", "group"):
            raise errors.BadRequest("the parameter kind must be user or group")
        if not 1 <= len(text) <= 256:
            raise errors.BadRequest("give a part of the name as the parameter text")
        request = PrincipalSearch(
            identity=call.envelope, text=text, kind=kind, provider=call.query("provider")[:63], limit=min(call.number("limit") or 20, 100),
        )  # fmt: skip
        found = await self._state.bus.request(
            SEARCH_PRINCIPALS.subject, request, SEARCH_PRINCIPALS.reply, timeout_s=SIGN_IN_S
        )
        return answer(found.model_dump(mode="json"))

    async def test(self, call: Call) -> web.StreamResponse:
        """Whether a provider works as it is stored; with a name and password, what a sign-in there would see."""
        given = parse_json_body(_Test, check_object(await read_body(call.request)))
        request = ProviderTest(
            identity=call.envelope, provider=call.path("name")[:63], user=given.user, password=given.password
        )
        tested = await self._state.bus.request(TEST_PROVIDER.subject, request, TEST_PROVIDER.reply, timeout_s=SIGN_IN_S)
        return answer(tested.model_dump(mode="json"), headers={"Cache-Control": "no-store"})
