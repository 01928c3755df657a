"""The table of all routes: what is served, by whom, and what a call needs. `app` makes the web application from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

from libs.common.recording.log import JetStreamLog
from libs.common.resources.meta import API_VERSION
from services.gateway.access_reviews import AccessReviews
from services.gateway.api import Api
from services.gateway.audit import AuditEvents
from services.gateway.back_channel import BackChannelLogouts
from services.gateway.call import Call
from services.gateway.core import EmptyCore
from services.gateway.devices import Devices
from services.gateway.documents import Documents
from services.gateway.health import Health
from services.gateway.namespaces import Namespaces
from services.gateway.nodes import Nodes
from services.gateway.pages import Pages, read_files
from services.gateway.principals import Principals
from services.gateway.projects import Projects
from services.gateway.recordings import Recordings
from services.gateway.redirects import Redirects
from services.gateway.registration import AgentEntry
from services.gateway.reviews import Reviews
from services.gateway.scim import METHODS, Scim
from services.gateway.second_factor import SecondFactor
from services.gateway.signin import SignIn
from services.gateway.state import State
from services.gateway.streams import Streams
from services.gateway.token_exchange import TokenExchanges
from services.gateway.virtual import Virtual
from services.gateway.writes import Writes

Handler = Callable[[Call], Awaitable[web.StreamResponse]]
Need = Literal["identity", "nothing", "patience"]
"""identity: a genuine envelope, else 401. nothing: probes, the pages of the UI, and what counts by itself. patience: public, counted per address."""
OURS = f"/apis/{API_VERSION}"


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    handler: Handler
    needs: Need = "identity"
    owing: bool = False
    """Whether it is for callers, too, who must change their password or set up a second factor before anything else."""


def render_routes(state: State) -> list[Route]:
    """All routes; the first that fits counts."""
    health, documents, sign_in, agents = Health(state), Documents(), SignIn(state), AgentEntry(state)
    second_factor, devices = SecondFactor(state), Devices(state)
    principals, redirects = Principals(state), Redirects(state)
    pages, audit = Pages(read_files()), AuditEvents(state)
    api, writes, virtual, reviews, core = (
        Api(state, Streams(state)),
        Writes(state),
        Virtual(state),
        Reviews(state),
        EmptyCore(),
    )
    recordings = Recordings(state, state.recordings or JetStreamLog(state.bus))
    scim, projects = Scim(state), Projects(state)
    item = OURS + "/{plural}/{name}"
    status = item + "/{subresource}"
    access, whoami = (
        "/apis/authorization.k8s.io/v1/selfsubject{0}reviews",
        "/apis/authentication.k8s.io/{version:v1|v1beta1}/selfsubjectreviews",
    )
    return [
        Route("GET", "/healthz", health.alive, "nothing"),
        Route("GET", "/livez", health.alive, "nothing"),
        Route("GET", "/readyz", health.ready, "nothing"),
        Route("GET", "/", pages.start, "nothing"),
        Route("GET", "/ui", pages.start, "nothing"),
        Route("GET", "/ui/{file:.*}", pages.file, "nothing"),
        Route("GET", "/version", documents.version, "nothing"),
        Route("POST", "/v1/login", sign_in.login, "patience"),
        Route("POST", "/v1/token", TokenExchanges(state).exchange, "patience"),
        Route("POST", "/v1/back-channel-logout/{provider}", BackChannelLogouts(state).logout, "nothing"),
        Route("GET", "/v1/sign-in", sign_in.options, "patience"),
        Route("GET", "/v1/sign-in/{provider}", redirects.begin, "patience"),
        Route("GET", "/v1/callback/{provider}", redirects.finish, "patience"),
        Route("GET", "/v1/session", sign_in.session, owing=True),
        Route("POST", "/v1/session", sign_in.extend),
        Route("POST", "/v1/logout", sign_in.logout, owing=True),
        Route("GET", "/v1/principals", principals.search),
        Route("POST", "/v1/identity-providers/{name}/test", principals.test),
        Route("POST", "/v1/project-templates/{name}/projects", projects.make),
        Route("POST", "/v1/projects/{name}/namespaces", projects.create),
        Route("POST", "/v1/projects/{name}/namespaces/move", projects.move),
        Route("POST", "/v1/clusters/{name}/namespaces", Namespaces(state).create),
        Route("POST", "/v1/password", sign_in.password, owing=True),
        Route("POST", "/v1/devices", devices.begin, "patience"),
        Route("POST", "/v1/devices/fetch", devices.fetch, "patience"),
        Route("POST", "/v1/devices/answer", devices.answer),
        Route("POST", "/v1/second-factor", second_factor.begin, owing=True),
        Route("POST", "/v1/second-factor/confirm", second_factor.confirm, owing=True),
        Route("POST", "/v1/second-factor/remove", second_factor.remove),
        Route("POST", "/v1/agents/register", agents.register, "patience"),
        Route("GET", "/v1/import/{token}.yaml", agents.manifest, "patience"),
        Route("GET", "/v1/nodes/{name}/history", Nodes(state).history),
        Route("GET", "/v1/recordings", recordings.collection),
        Route("GET", "/v1/recordings/{name}", recordings.read),
        Route("GET", "/v1/recordings/{name}/events", recordings.events),
        *(Route(method, "/v1/scim/{provider}/v2/{path:.*}", scim.serve) for method in METHODS),
        Route("GET", "/api", documents.api),
        Route("GET", "/apis", documents.apis),
        Route("GET", "/openapi/v2", documents.openapi_v2),
        Route("GET", "/openapi/v3", documents.openapi_index),
        Route("GET", "/openapi/v3/api/v1", documents.openapi_group),
        Route("GET", "/openapi/v3/apis/{group}/{version}", documents.openapi_group),
        Route("POST", access.format("access"), reviews.access),
        Route("POST", access.format("rules"), reviews.rules),
        Route("POST", whoami, reviews.myself),
        Route("POST", OURS + "/kubeconfigs", virtual.create_kubeconfig),
        Route("POST", OURS + "/tokenrequests", virtual.create_token),
        Route("POST", OURS + "/accessreviews", AccessReviews(state).create),
        Route("POST", OURS + "/clusters/{name}/registration", virtual.create_registration),
        Route("GET", "/v1/audit/key", audit.key),
        Route("GET", OURS + "/auditevents", audit.collection),
        Route("GET", OURS + "/{plural}", api.collection),
        Route("POST", OURS + "/{plural}", writes.create),
        Route("DELETE", OURS + "/{plural}", writes.delete_collection),
        Route("GET", item, api.read),
        Route("PUT", item, writes.update),
        Route("PATCH", item, writes.patch),
        Route("DELETE", item, writes.delete),
        Route("GET", status, api.read),
        Route("PUT", status, writes.update),
        Route("PATCH", status, writes.patch),
        Route("GET", "/api/v1", documents.resources),
        Route("GET", "/api/v1/{plural}", core.collection),
        Route("GET", "/api/v1/{plural}/{name}", core.read),
        Route("GET", "/api/v1/namespaces/{namespace}/{plural}", core.collection),
        Route("GET", "/api/v1/namespaces/{namespace}/{plural}/{name}", core.read),
        Route("GET", "/apis/{group}", documents.group),
        Route("GET", "/apis/{group}/{version}", documents.resources),
    ]
