"""How large an object may be, and the bytes of one that is not too large. `writer` encodes with it what people write."""

from __future__ import annotations

import secrets

from libs.common import errors
from libs.common.resources import codec
from libs.common.resources.meta import GROUP, Resource
from libs.common.resources.registry import ResourceType
from libs.common.store.buckets import SPECS, BucketSpec

RESERVE_BYTES = 128 * 1024
"""What people can't fill: room for the status, finalizers and managedFields that the hub adds to an object at the limit."""


def max_object_bytes(rtype: ResourceType) -> int:
    """Stored size up to which people may make an object of this kind."""
    return SPECS.get(rtype.bucket, BucketSpec(rtype.bucket)).max_value_bytes - RESERVE_BYTES


def encode_checked(rtype: ResourceType, resource: Resource, old_size_bytes: int = 0) -> bytes:
    """The bytes to store. Raises TooLarge, unless they are no more than the object had: whoever makes it smaller may."""
    value = codec.encode(resource, secrets.token_hex(8))
    limit = max_object_bytes(rtype)
    if len(value) > max(limit, old_size_bytes):
        raise errors.TooLarge(
            f'{rtype.plural}.{GROUP} "{resource.name}" is too large: {len(value)} bytes, and at most {limit} are kept; '
            "shorten it or make several of it",
            kind=rtype.plural,
            name=resource.name,
        )
    return value
