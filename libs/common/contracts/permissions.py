"""What NATS lets each service and each agent say and hear, rendered from the contracts. Everything not listed is refused.

`libs.common.bus.accounts` signs these into credentials; `proto/permissions.yaml` shows them. A service may publish where it calls or
answers, read the buckets it needs, and write its own alone; an agent has its own cluster's subjects and nothing of JetStream.
"""

from __future__ import annotations

from typing import Any

from libs.common.contracts import subjects
from libs.common.contracts.methods import METHODS, OWNERS, SERVICES
from libs.common.resources.registry import BUCKETS

GRANT_SOURCES = ("identity", "authz", "project", "cluster_controller")
"""Buckets that the grants are compiled from: everybody who decides reads them."""

READS: dict[str, tuple[str, ...]] = {
    "identity": GRANT_SOURCES,
    "authz": GRANT_SOURCES,
    "project": GRANT_SOURCES,
    "node_registry": (*GRANT_SOURCES, "node_registry"),
    "cluster_controller": GRANT_SOURCES,
    "auth_proxy": GRANT_SOURCES,
    "gateway": BUCKETS,
}
LISTENS: dict[str, tuple[str, ...]] = {
    "project": (subjects.observation("*", "namespaces"),),
    "node_registry": (subjects.observation("*", "nodes"),),
    "cluster_controller": (subjects.heartbeat("*"),),
    "identity": (subjects.sign_in_counts(),),
}
PUBLISHES: dict[str, tuple[str, ...]] = {
    "cluster_controller": (subjects.notice("*"),),
    "identity": (subjects.sign_in_counts(),),
    # Make the stream where there is none, and append. No service may change, purge or delete it, nor a message of it.
    "auth_proxy": (
        subjects.audit("*"),
        f"$JS.API.STREAM.CREATE.{subjects.AUDIT_STREAM}",
        f"$JS.API.STREAM.INFO.{subjects.AUDIT_STREAM}",
    ),
    "gateway": (
        f"$JS.API.STREAM.INFO.{subjects.AUDIT_STREAM}",
        f"$JS.API.STREAM.MSG.GET.{subjects.AUDIT_STREAM}",
    ),
}

SHORT_LIVED: dict[str, str] = {"tunnels": "auth_proxy"}
"""Buckets whose entries end by themselves, by the service whose processes write and read them: nothing in them is worth a backup."""

AGENT_SUBSCRIPTIONS = 50
AGENT_PAYLOAD_BYTES = 256 * 1024
REPLY_S = 60


def stream_of(bucket: str) -> str:
    """The JetStream stream behind a bucket."""
    return f"KV_{bucket}"


def inbox_prefix(service: str) -> str:
    """Prefix of the reply subjects of one service; nobody else may hear there."""
    return f"_INBOX_svc_{service}"


def service_permissions(service: str) -> dict[str, Any]:
    """`{"pub": {"allow": […]}, "sub": {"allow": […]}, "resp": {…}}` for a service's user JWT."""
    publish = {method.subject for method in METHODS if service in method.callers} | set(PUBLISHES.get(service, ()))
    subscribe = {f"{inbox_prefix(service)}.>"} | set(LISTENS.get(service, ()))
    subscribe |= {method.subject for method in METHODS if method.service == service}
    publish.add("$JS.API.INFO")
    for bucket in READS[service]:
        publish |= _reading(bucket)
    if service in OWNERS:
        publish |= _owning(service)
    for bucket in [bucket for bucket, owner in SHORT_LIVED.items() if owner == service]:
        publish |= _owning(bucket)
    publish |= RECORDINGS.get(service, set())
    return {
        "pub": {"allow": sorted(publish)},
        "sub": {"allow": sorted(subscribe)},
        "resp": {"max": 1, "ttl": REPLY_S * 1_000_000_000},
    }


def administration_permissions() -> dict[str, Any]:
    """For backup, restore and fault finding, run by whoever holds the hub's own files: everything of the platform's account."""
    return {"pub": {"allow": [">"]}, "sub": {"allow": [">"]}}


def agent_template() -> dict[str, Any]:
    """The template of the signing key of agents; `{{name()}}` is the cluster's uid, which the JWT is made out to."""
    uid = "{{name()}}"
    return {
        "pub": {"allow": [f"up.{uid}.>"]},
        "sub": {"allow": [f"down.{uid}.>", f"{subjects.agent_inbox(uid)}.>"]},
        "subs": AGENT_SUBSCRIPTIONS,
        "data": -1,
        "payload": AGENT_PAYLOAD_BYTES,
    }


def _reading(bucket: str) -> set[str]:
    stream = stream_of(bucket)
    return {
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.STREAM.MSG.GET.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.DELETE.{stream}.*",
        f"$JS.API.CONSUMER.INFO.{stream}.*",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
    }


def _owning(bucket: str) -> set[str]:
    stream = stream_of(bucket)
    return _reading(bucket) | {
        f"$KV.{bucket}.>",
        f"$JS.API.STREAM.CREATE.{stream}",
        f"$JS.API.STREAM.UPDATE.{stream}",
        f"$JS.API.STREAM.PURGE.{stream}",
        f"$JS.API.STREAM.MSG.DELETE.{stream}",
    }


def _reading_stream(stream: str) -> set[str]:
    """Reading a plain stream from its start, by consumers of one's own."""
    return {
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}.*",
        f"$JS.API.CONSUMER.DELETE.{stream}.*",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
    }


RECORDINGS: dict[str, set[str]] = {
    "auth_proxy": {
        subjects.recording("*", "*"),
        *(f"$JS.API.STREAM.{what}.{subjects.RECORDINGS_STREAM}" for what in ("INFO", "CREATE")),
    },
    "gateway": _reading_stream(subjects.RECORDINGS_STREAM),
}
"""The front door appends to recorded sessions and can't read them; the gateway reads and can't write. Nobody changes the stream's bounds."""

assert set(READS) == set(SERVICES)
