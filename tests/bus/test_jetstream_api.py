from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from libs.common import errors
from libs.common.bus.jetstream_api import Delivery, Refused, parse_delivery, to_error


@dataclass
class Raw:
    reply: str
    subject: str = "$KV.identity.users.ann"
    data: bytes = b""
    headers: dict[str, str] | None = field(default=None)


@pytest.mark.parametrize(
    ("reply", "delivery"),
    [
        ("$JS.ACK.KV_identity.c.1.22.333.1700000000.4", Delivery(22, 333, 1, 4)),
        ("$JS.ACK.domain.hash.KV_identity.c.1.22.333.1700000000.4.random", Delivery(22, 333, 1, 4)),
        ("$JS.ACK._.hash.KV_identity.c.2.22.333.1700000000.0", Delivery(22, 333, 2, 0)),
        ("_INBOX.x", None),
        ("", None),
        ("$JS.ACK.KV_identity.c.one.22.333.1700000000.4", None),
    ],
)
def test_both_forms_of_reply_subjects_are_read(reply: str, delivery: Delivery | None) -> None:
    assert parse_delivery(Raw(reply)) == delivery


@pytest.mark.parametrize(
    ("code", "number", "family", "again"),
    [
        (400, 10071, errors.Conflict, None),
        (404, 10037, errors.NotFound, None),
        (404, 10014, errors.NotFound, None),
        (400, 10054, errors.TooLarge, None),
        (400, 10077, errors.Unavailable, False),
        (503, 10023, errors.Unavailable, False),
        (500, 10047, errors.Unavailable, False),
        (503, 10008, errors.Unavailable, True),
        (404, 10059, errors.Unavailable, True),
        (400, 10052, errors.Unavailable, False),
    ],
)
def test_error_numbers_become_our_families(
    code: int, number: int, family: type[errors.HerdsmanError], again: bool | None
) -> None:
    error = to_error(code, number, "what the server says", "STREAM.INFO.KV_identity")
    assert isinstance(error, family)
    assert (error.again if isinstance(error, Refused) else None) == again
    assert errors.from_wire(error.to_wire()).http_status == error.http_status
