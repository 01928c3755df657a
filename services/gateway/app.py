"""The web application: how a call passes. Request id → who calls → the route's handler → answer, or Status for every error."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import structlog
from aiohttp import web

from libs.common import errors
from libs.common.crypto.envelope import HEADER
from libs.common.observe import client, trace
from services.gateway.answers import answer_error
from services.gateway.bodies import MAX_BYTES
from services.gateway.call import Call
from services.gateway.limits import RateLimit
from services.gateway.routes import Route, render_routes
from services.gateway.state import State

REQUEST_ID = "X-Request-Id"
_REQUEST_ID = re.compile(r"[-A-Za-z0-9_.]{1,64}")
SLOW_S = 1.0
PROBES = ("/readyz", "/livez", "/healthz")
"""Asked every few seconds: not ready is an answer, not an event."""
_log = structlog.get_logger(__name__)
_current: ContextVar[str] = ContextVar("request_id", default="")
_Web = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(state: State) -> web.Application:
    """The application with all routes of the table."""
    app = web.Application(client_max_size=MAX_BYTES, middlewares=[_errors_as_status])
    patience = RateLimit(state.config.requests_per_minute, state.monotonic)
    for route in render_routes(state):
        app.router.add_route(route.method, route.path, _adapt(route, state, patience))
    return app


def make_runner(app: web.Application) -> web.AppRunner:
    """A handler ends when its client has gone, so that no watch outlives its reader."""
    return web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=3.0, keepalive_timeout=75.0)


def _adapt(route: Route, state: State, patience: RateLimit) -> _Web:
    async def handle(request: web.Request) -> web.StreamResponse:
        envelope = request.headers.get(HEADER, "")
        if len(request.headers.getall(HEADER, [])) > 1:
            raise errors.BadRequest("a request has one identity")
        # On a public route nobody is refused for what they owe: there they are nobody.
        known = state.verifier.open(envelope, owing=route.owing or route.needs != "identity") if envelope else None
        if known is not None and known.owes and not route.owing:
            envelope, known = "", None
        call = Call(request, _current.get(), envelope, known)
        client.enter(client.make(call.address, request.headers.get("User-Agent", "")))
        if route.needs == "identity" and known is None:
            raise errors.Unauthenticated("Unauthorized: sign in with `herdsman login` and use the token that it gives")
        if route.needs == "patience":
            patience.check(call.address)
        return await route.handler(call)

    return handle


@web.middleware
async def _errors_as_status(request: web.Request, handler: _Web) -> web.StreamResponse:
    """Every answer carries the request id; every error is a Status; what nobody expected is logged and told in general terms."""
    began = time.perf_counter()
    request_id = _request_id(request)
    _current.set(request_id)
    try:
        with trace.span(f"{request.method} {_route_name(request)}", request.headers.get(trace.HEADER, "")):
            response = await handler(request)
    except errors.HerdsmanError as exc:
        response = answer_error(exc)
    except web.HTTPMethodNotAllowed as exc:
        response = answer_error(
            errors.MethodNotAllowed(f"the server does not allow {exc.method} on the requested resource")
        )
        response.headers["Allow"] = ", ".join(sorted(exc.allowed_methods))
    except web.HTTPNotFound:
        response = answer_error(errors.NotFound("the server could not find the requested resource"))
    except web.HTTPRequestEntityTooLarge:
        response = answer_error(errors.TooLarge(f"the request is too large: the limit is {MAX_BYTES} bytes"))
    except web.HTTPException as exc:
        response = answer_error(errors.BadRequest(f"the request can't be served: {exc.reason}"))
    except ConnectionError:
        # The client went away in the middle of its answer: there is nobody to tell.
        raise
    except Exception:  # noqa: BLE001 - the last line of defence: told as 500, logged with its trace
        _log.exception("request_failed", request_id=request_id, method=request.method, route=_route_name(request))
        response = answer_error(
            errors.Internal(f"internal error: the gateway's log has more under request id {request_id}")
        )
    if not response.prepared:
        response.headers[REQUEST_ID] = request_id
    _tell(request, response, request_id, time.perf_counter() - began)
    return response


def _route_name(request: web.Request) -> str:
    """The route's pattern: a span's name holds no object's name."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"


def _tell(request: web.Request, response: web.StreamResponse, request_id: str, duration_s: float) -> None:
    """One line for what went wrong here or took long; the front door writes one for every call."""
    facts = {
        "method": request.method,
        "route": _route_name(request),
        "status": response.status,
        "request_id": request_id,
    }
    if (response.status >= 500 and request.path not in PROBES) or (duration_s > SLOW_S and not response.prepared):
        _log.warning("request_served", duration_ms=round(duration_s * 1000), **facts)
    else:
        _log.debug("request_served", duration_ms=round(duration_s * 1000), **facts)


def _request_id(request: web.Request) -> str:
    """The id that the front door gave, else one of our own."""
    given = request.headers.get(REQUEST_ID, "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
