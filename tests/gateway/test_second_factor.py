from __future__ import annotations

import pytest

from libs.common.contracts import messages as m
from libs.common.contracts.methods import BEGIN_SECOND_FACTOR
from services.gateway.qr import BORDER, render_qr
from tests.gateway.support import Hub, real_monotonic

URI = (
    "otpauth://totp/Herdsman%20hub.example%3Aada?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Herdsman%20hub.example"
)
FINDER = ["1111111", "1000001", "1011101", "1011101", "1011101", "1000001", "1111111"]


@pytest.fixture
async def hub(clock, tmp_path):
    async with Hub(clock, tmp_path, real_monotonic).running() as running:
        yield running


async def test_the_secret_comes_with_its_picture_and_is_kept_by_nobody(hub):
    await hub.serve(BEGIN_SECOND_FACTOR, lambda _request: m.SecondFactorBegun(secret="GEZDGNBVGY3TQOJQ", uri=URI))
    async with hub.request("POST", "/v1/second-factor", {"password": "x"}, by="ann") as response:
        assert response.status == 201
        assert response.headers["Cache-Control"] == "no-store"
        answer = await response.json()
    assert answer["qr"] == render_qr(URI)
    assert answer["secret"] == "GEZDGNBVGY3TQOJQ"


def test_a_picture_is_square_with_three_finders_inside_a_light_border():
    rows = render_qr(URI)
    size = len(rows)
    assert {len(row) for row in rows} == {size}
    assert set("".join(rows)) == {"0", "1"}
    assert set("".join(rows[:BORDER] + rows[-BORDER:]) + "".join(r[:BORDER] + r[-BORDER:] for r in rows)) == {"0"}
    far = size - BORDER - len(FINDER)
    for top, left in ((BORDER, BORDER), (BORDER, far), (far, BORDER)):
        assert [row[left : left + 7] for row in rows[top : top + 7]] == FINDER
