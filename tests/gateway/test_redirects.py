"""Linking an account is begun on the hub's own page alone: a link from elsewhere would come with the session's cookie."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import unquote

import pytest

from libs.common.contracts import messages as m
from libs.common.contracts import methods
from tests.gateway.support import Hub, real_monotonic

BEGUN = m.RedirectBegun(
    url="https://sso.example/authorize", pending="sealed", expires_at=datetime(2026, 2, 2, tzinfo=UTC)
)


@pytest.fixture
async def hub(clock, tmp_path):
    async with Hub(clock, tmp_path, real_monotonic).running() as running:
        yield running


async def begin(hub, query: str, site: str, by: str | None = "ann"):
    headers = hub.headers(by, {"Sec-Fetch-Site": site} if site else {})
    async with hub.session.get(f"http://hub/v1/sign-in/sso{query}", headers=headers, allow_redirects=False) as response:
        problem = response.cookies.get("__Host-herdsman-problem")
        return response.headers["Location"], unquote(problem.value) if problem else ""


async def test_an_account_is_linked_from_the_hubs_own_page_alone(hub):
    asked = []
    await hub.serve(methods.BEGIN_REDIRECT, lambda request: asked.append(request) or BEGUN)
    for site in ("cross-site", "same-site", "none", ""):
        location, problem = await begin(hub, "?link=1", site)
        assert location == "/ui/"
        assert "own page" in problem
    assert not asked
    assert await begin(hub, "?link=1", "same-origin") == (BEGUN.url, "")
    # To sign in, any link may lead here, and it links nothing.
    assert await begin(hub, "", "cross-site") == (BEGUN.url, "")
    assert [bool(request.identity) for request in asked] == [True, False]
