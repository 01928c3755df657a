"""Every way through the front door: which part of it gets an address, and that only one of them has a way to a cluster.

CVE-2021-36776, CVE-2022-21953 and CVE-2024-52280 were each a second path to a cluster that did not check what the first one did.
"""

from __future__ import annotations

import ast
import inspect

import pytest

from services.auth_proxy import cluster_route, gateway_route, nats_route, routes
from services.gateway.routes import render_routes
from tests.auth_proxy.recorder import FORMS, Scene
from tests.gateway.support import Hub, real_monotonic
from tests.gateway.test_route_walk import fill

DOOR = [
    "/k8s/clusters/prod/api", "/agent/v1/ca", "/agent/v1/connect", "/agent/v1/x", "/agent/v1/../../k8s/clusters/prod/api", "/nats", "/nats/", "/nats/x",
    "/healthz", "/livez", "/readyz", "/metrics", "/k8s", "/k8s/", "/k8s/clusters", "/k8s/proxy/prod/api", "/v3/clusters/prod", "/meta/proxy/evil.example", "/proxy",
]  # fmt: skip
WITHOUT_A_NAME = {"/healthz": 200, "/livez": 200}
"""What the door answers to anybody by itself. The gateway's public routes are walked where they are."""


def test_cve_2021_36776_only_the_cluster_route_can_reach_a_cluster():
    """The route of the agents puts connections in, the cluster route takes them out; no other module of the door knows them."""
    for module in (gateway_route, nats_route, routes):
        names = {node.id for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Name)}
        imported = {
            alias.name for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.ImportFrom) for alias in node.names
        }  # fmt: skip
        assert not {name for name in names | imported if "tunnel" in name.lower()}, module.__name__


@pytest.mark.parametrize("who", ["nobody", "a stranger"])
async def test_cve_2021_36776_no_address_reaches_a_cluster_for_who_has_no_role(scene: Scene, tmp_path, clock, who):
    """The addresses of the door and of the gateway's whole table, in every form; the gateway itself is away."""
    token = "" if who == "nobody" else await scene.door.token(await scene.door.user("eve"))
    table = {fill(route.path) for route in render_routes(Hub(clock, tmp_path, real_monotonic).state)}
    for target in [*DOOR, *sorted(table)]:
        for form, lines in FORMS.items():
            reply = await scene.say(lines, target=target, token=token)
            if target in WITHOUT_A_NAME:
                assert reply.status == WITHOUT_A_NAME[target]
            else:
                assert reply.status >= 400, (target, form, reply.raw)
            if target.startswith(cluster_route.PREFIX.decode()):
                assert reply.status == (401 if who == "nobody" else 403), (target, form)
    assert not scene.upstream.heads


async def test_cve_2021_36776_inbound_identity_is_refused_on_every_route(scene: Scene, tmp_path, clock):
    """Before anybody asks who calls: also on routes that are public."""
    table = (
        {fill(route.path) for route in render_routes(Hub(clock, tmp_path, real_monotonic).state)}
        - set(WITHOUT_A_NAME)
        - {"/readyz"}
    )
    for target in ["/k8s/clusters/prod/api", *sorted(table)]:
        for line in ("Impersonate-User: admin", "X-Remote-User: admin", "Herdsman-Identity: a.b", "X_Remote_User: a"):
            reply = await scene.say([line], target=target)
            # A wish to be somebody else is a question to the cluster, whose answer here is none.
            assert reply.status in (400, 403, 502), (target, line)
    for head in scene.upstream.heads:
        assert b"herdsman:ada" in head
        assert b"-User: admin" not in head


@pytest.mark.parametrize(
    ("method", "lines", "body"),
    [
        ("POST", ["Content-Length: 2"], b"{}"),
        ("GET", ["Connection: Upgrade", "Upgrade: websocket"], b""),
        ("DELETE", [], b""),
        ("GET", ["Content-Length: 2"], b"{}"),
    ],
)
async def test_readiness_is_asked_in_the_hubs_own_words(scene: Scene, method, lines, body):
    reply = await scene.say(lines, target="/readyz", method=method, token="", after=body)
    assert reply.status in (400, 405)
