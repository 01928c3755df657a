"""What one audited call costs: on the event loop's thread, and beside it. `python -m bench.audit_cost [EVENTS]`.

The call path is measured as the routes use it: admit (parse, decide), the end of the exchange, the event into the queue. The rest is what
the writer's thread does: rendering, hashing, compressing, signing, and the spool file.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.common.access.principal import Principal
from libs.common.audit.event import RawEvent
from libs.common.audit.policy import Policy
from libs.common.relay.head import parse_request
from services.auth_proxy.audit_writer import Writer
from services.auth_proxy.calls import Calls

CHUNK = 2000
GROUPS = frozenset({"herdsman:cluster:prod:cluster-member", "herdsman:project:shop:project-owner"})


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    taken: list[RawEvent] = []
    sink: Any = SimpleNamespace(write=taken.append, check_room=lambda: None)
    policy: Any = SimpleNamespace(current=Policy())
    calls = Calls(sink, policy, lambda _name: "uid")
    principal = Principal(user="ana", user_uid="0f8b", principal_id="local:user:0f8b", token="t1234")
    caller: Any = SimpleNamespace(principal=principal)
    session: Any = SimpleNamespace(peer="10.1.2.3")
    work = []
    for number in range(count):
        path = f"/api/v1/namespaces/ns-{number % 50}/pods/pod-{number % 5000}"
        raw = f"GET /k8s/clusters/prod{path} HTTP/1.1\r\nHost: hub\r\nUser-Agent: kubectl/v1.36.0 (linux/amd64)\r\nAccept: application/json\r\n\r\n"
        work.append((parse_request(raw.encode()), path.encode()))
    exchange: Any = SimpleNamespace(status=200, error="", bytes_in=0, bytes_out=4096, request=work[0][0])

    gc.freeze()  # as the service does after its start: what the call path leaves is looked at, not the whole process
    costs = []
    for start in range(0, count, CHUNK):
        cpu = time.thread_time()
        for head, target in work[start : start + CHUNK]:
            calls.check_room()
            call = calls.admit(head, session, caller, target, "prod", "uid", GROUPS)
            call.began(exchange)
            call.ended(exchange)
        costs.append((time.thread_time() - cpu) / len(work[start : start + CHUNK]))
    tell("on the loop's thread", costs)

    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(Path(folder), Ed25519PrivateKey.generate(), None)
        writer.start()
        began, costs = time.perf_counter(), []
        for start in range(0, count, CHUNK):
            cpu = time.thread_time()
            writer.write(taken[start : start + CHUNK], [])
            costs.append((time.thread_time() - cpu) / len(taken[start : start + CHUNK]))
        took = time.perf_counter() - began
        tell("beside it", costs)
        print(
            f"{count / took:,.0f} events/s with all waits, {writer.pending_bytes / count:.0f} bytes an event in the spool"
        )
        writer.close()


def tell(where: str, costs: list[float]) -> None:
    """The best tenth is what the work takes; the median is what the neighbours add."""
    ordered = sorted(costs)
    best, median = ordered[len(ordered) // 10], ordered[len(ordered) // 2]
    print(
        f"{where}: {1e6 * best:.2f} µs of CPU an event, {1 / best:,.0f} a second and core (median {1e6 * median:.2f} µs)"
    )


if __name__ == "__main__":
    main()
