"""The stream that audit events are kept in. Its size is set aside when it is made, so it takes no room from the state's buckets."""

from __future__ import annotations

from libs.common.bus.streams import StreamSpec
from libs.common.contracts import subjects

MAX_BYTES = 1024 * 1024 * 1024
MAX_AGE_S = 90 * 24 * 3600


def audit_stream(max_bytes: int = MAX_BYTES, max_age_s: int = MAX_AGE_S) -> StreamSpec:
    """Append-only: nobody deletes a message or purges; what is too old or too much goes, the oldest first. Payloads come compressed."""
    return StreamSpec(
        subjects.AUDIT_STREAM,
        (subjects.audit("*"),),
        max_bytes=max_bytes,
        max_age_s=max_age_s,
        append_only=True,
        compressed=False,
    )
