"""How agents come in: the import manifest for who holds a registration token, and the exchange of that token for a credential."""

from __future__ import annotations

from aiohttp import web

from libs.common.contracts.messages import AgentRegistration, ManifestRequest
from libs.common.contracts.methods import CHECK_REGISTRATION, REGISTER_AGENT
from services.gateway.answers import answer
from services.gateway.bodies import check_object, read_body
from services.gateway.call import Call
from services.gateway.manifest import render_manifest
from services.gateway.signin import parse_json_body
from services.gateway.state import State


class AgentEntry:
    """Public: the token in the request is the credential, and cluster_controller judges it."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def register(self, call: Call) -> web.StreamResponse:
        """One-time token and public key → credential. Raises Unauthenticated for a token that is unknown, used or expired."""
        given = parse_json_body(AgentRegistration, check_object(await read_body(call.request)))
        issued = await self._state.bus.request(REGISTER_AGENT.subject, given, REGISTER_AGENT.reply, timeout_s=20)
        return answer(issued.model_dump(mode="json"), headers={"Cache-Control": "no-store"})

    async def manifest(self, call: Call) -> web.StreamResponse:
        """The YAML that `kubectl apply` brings a cluster in with; fetching it does not use the token up."""
        token = call.path("token")
        checked = await self._state.bus.request(
            CHECK_REGISTRATION.subject, ManifestRequest(token=token[:256]), CHECK_REGISTRATION.reply
        )
        text = render_manifest(
            hub=self._state.config.public_url, ca=self._state.ca, image=self._state.config.agent_image,
            cluster=checked.cluster, token=token,
        )  # fmt: skip
        return web.Response(text=text, content_type="application/yaml", headers={"Cache-Control": "no-store"})
