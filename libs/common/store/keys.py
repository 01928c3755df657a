"""Keys of a bucket: dotted tokens of [-a-z0-9_], because each key is also the tail of a NATS subject.

Every implementation of the store checks keys and batches here; go on to `memory` or `jetstream`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from libs.common.store.base import MAX_BATCH, Put

_KEY = re.compile(r"[-a-z0-9_]+(\.[-a-z0-9_]+)*")
MAX_LENGTH = 512
"""Far below NATS's control line of 4,096 bytes, far above `<plural>.<253 characters>`."""


def check_key(key: str) -> str:
    """The key itself. Raises ValueError: a wrong key is a bug of the caller, who validates names before."""
    if len(key) > MAX_LENGTH or not _KEY.fullmatch(key):
        raise ValueError(f"{key[:80]!r} is no key: dotted tokens of [-a-z0-9_], at most {MAX_LENGTH} characters")
    return key


def check_prefix(prefix: str) -> str:
    """The prefix itself; empty means all keys. Raises ValueError."""
    return check_key(prefix) if prefix else prefix


def is_below(prefix: str, key: str) -> bool:
    """Whether `key` has `prefix` as its first tokens and at least one more; everything is below the empty prefix."""
    return not prefix or (key.startswith(prefix) and key[len(prefix) : len(prefix) + 1] == ".")


def check_batch(writes: Sequence[Put]) -> None:
    """Raises ValueError for a batch that no store takes: empty, too long, a wrong key, or one key twice."""
    if not 0 < len(writes) <= MAX_BATCH:
        raise ValueError(f"a batch holds 1 to {MAX_BATCH} writes, not {len(writes)}")
    if len({check_key(put.key) for put in writes}) != len(writes):
        raise ValueError("a batch writes each key once")
