"""Single functions of the hot path, µs for one call: `python -m bench.proxy.micro`. The least of many repetitions, so noise is left out.

The last rows pass one whole call through the door's own objects with transports that only count: everything that is Python, without
sockets and TLS. What is missing from the CPU per request under load is theirs (`profile --how perf`).
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from bench.proxy import scene
from bench.proxy.roles.door import make_member, write_kubeconfigs
from libs.common.audit.request import parse_request as read_info
from libs.common.observe import log
from libs.common.relay import guard, impersonation, rebuild
from libs.common.relay.head import parse_request, parse_response
from libs.common.relay.names import KUBERNETES_REQUEST
from libs.common.relay.session import Session
from libs.common.relay.terminal import Terminal
from libs.common.relay.upstream import Upstream
from services.auth_proxy import main as front_door
from services.auth_proxy.authenticate import Authenticator
from services.auth_proxy.calls import Calls
from services.auth_proxy.cluster_route import ClusterRoute, check_only_servers_write, is_long, split_target
from services.auth_proxy.cluster_tunnels import ClusterTunnels
from services.auth_proxy.direct import DirectClusters
from services.auth_proxy.figures import Figures
from services.auth_proxy.instances import Claim
from services.auth_proxy.tunnels import LocalTunnels
from tests.auth_proxy.door import make_pki, open_door

Case = tuple[str, Callable[[], object]]
_PARTS: dict[str, Any] = {}


class Counting(asyncio.Transport):
    """A transport without a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:
        self.written = data

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Nothing arrives by itself."""

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        """Nothing to end."""

    close = abort


def remember(kind: type[Any]) -> None:
    """Keep what the door's `build` makes of this class: it hands nothing out."""
    first = kind.__init__

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        _PARTS[kind.__name__] = self
        first(self, *arguments, **named)

    kind.__init__ = init


def main() -> None:
    log.configure("bench", "error")
    for kind in (
        DirectClusters,
        Authenticator,
        ClusterRoute,
        Calls,
        Figures,
        LocalTunnels,
        front_door.Engine,
    ):
        remember(kind)
    asyncio.run(run())


async def run() -> None:
    with tempfile.TemporaryDirectory() as folder:
        api = Path(folder) / "api"
        api.mkdir()
        make_pki(api)
        clusters = write_kubeconfigs(Path(folder) / "clusters", api, 1)
        async with open_door(Path(folder), direct_clusters=clusters) as door:
            token = f"hm_adabench_{secrets.token_urlsafe(32)}"
            await make_member(door, "ada", token)
            await _PARTS["Authenticator"].find("adabench")
            cluster = door.uids["cluster/reverse"]
            request = scene.render_request(
                f"/k8s/clusters/reverse{scene.LIST_PATH}", [("Authorization", f"Bearer {token}")]
            )
            print(f"{'µs':>8}  one call of")
            for name, call in cases(request, token, cluster):
                print(f"{least_us(call):8.2f}  {name}", flush=True)
                # The audit log writes what came, beside the loop.
                await asyncio.sleep(0.2)


def least_us(call: Callable[[], object]) -> float:
    # Time of this thread alone: what else runs on the machine is none of it.
    timer = timeit.Timer(call, timer=time.thread_time)
    number = max(100, int(0.02 / max(timer.timeit(100) / 100, 1e-7)))
    return min(timer.repeat(15, number)) / number * 1e6


def cases(request: bytes, token: str, cluster: str) -> Iterator[Case]:
    answer = scene.render_answer(("Content-Length", str(scene.BODY_BYTES)))
    body = scene.render_list()
    head, response = parse_request(request), parse_response(answer)
    yield "parse_request", lambda: parse_request(request)
    yield "parse_request, the fields as before on this connection", lambda: parse_request(request, head.block)
    yield "parse_response", lambda: parse_response(answer)

    authenticator: Authenticator = _PARTS["Authenticator"]
    route: Any = _PARTS["ClusterRoute"]
    caller = authenticator.check(token.encode())
    grants = route._grants.current
    block = caller.block(grants, "reverse", cluster)
    target = scene.LIST_PATH.encode()
    yield "split_target", lambda: split_target(head.target)
    yield "check_only_servers_write", lambda: check_only_servers_write(head)
    yield "impersonation.parse_wish, none", lambda: impersonation.parse_wish(head)
    yield "authenticate (find the token, hash, compare, resolve)", lambda: authenticator.authenticate(head)
    yield "caller.block, made before", lambda: caller.block(grants, "reverse", cluster)
    info = read_info("GET", scene.LIST_PATH)
    yield "audit.request.parse_request", lambda: read_info("GET", scene.LIST_PATH)
    yield "is_long", lambda: is_long(info)

    def build() -> bytes:
        return rebuild.request_head(head, target, allowed=KUBERNETES_REQUEST, host=b"kubernetes", identity=block.lines)

    built = build()
    yield "rebuild.request_head", build
    yield "rebuild.check_identity", lambda: rebuild.check_identity(built, block.lines)
    reshape = route._find_way(head, caller, "reverse", None).reshape
    yield "reshape (rebuild.response_head)", lambda: reshape(response, False)
    arrived = parse_request(built)
    yield "guard.check, in the agent", lambda: guard.check(arrived)

    calls: Calls = _PARTS["Calls"]
    figures: Figures = _PARTS["Figures"]
    yield "figures.observe", lambda: figures.observe(True, "get", 200, 0.002, 0, scene.BODY_BYTES)
    peer = cast(Any, _Peer())
    yield (
        "calls.admit (what is asked, the audit's policy, the call)",
        lambda: calls.admit(head, peer, caller, target, "reverse", cluster, block.groups),
    )
    yield "the route's whole decision", lambda: route.route(head, _Peer())
    yield from whole_calls(request, answer + body, cluster)


class _Peer:
    peer = "127.0.0.1"


def whole_calls(request: bytes, answer: bytes, cluster: str) -> Iterator[Case]:
    """Session → route → exchange → upstream → exchange → session, as the loop calls it."""
    tunnels: ClusterTunnels = _PARTS["LocalTunnels"]._clusters[cluster]
    tunnels.admit(Claim("bench"))
    tunnels.add("bench", Counting())
    yield (
        "a whole call to the agent, all that is Python (without the audit's writing)",
        whole_call(request, answer, tunnels.idle[0]),
    )
    terminal: Terminal = _PARTS["DirectClusters"]._clusters["direct0"].terminal
    for name, pool, asked in (
        ("a whole call to a direct cluster", terminal._pool, request.replace(b"/reverse/", b"/direct0/")),
    ):
        upstream = Upstream(pool)
        upstream.adopt(Counting())
        pool.put_back(upstream)
        yield name, whole_call(asked, answer, upstream)


def whole_call(request: bytes, answer: bytes, upstream: Upstream) -> Callable[[], None]:
    """One call on a connection that is kept."""
    client = Counting()
    session = Session(_PARTS["Engine"])
    session.connection_made(client)

    def call() -> None:
        session.data_received(request)
        upstream.data_received(answer)

    call()
    assert client.written.endswith(answer[-100:]), client.written[:300]
    return call


if __name__ == "__main__":
    sys.exit(main())
