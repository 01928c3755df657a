"""The double passes what the real providers pass."""

from __future__ import annotations

import pytest

from libs.common import errors
from tests.identity.conformance import *  # noqa: F403 - the suite
from tests.identity.conformance import Site
from tests.identity.scripted import Scripted


@pytest.fixture
def site() -> Site:
    provider = Scripted()
    provider.add("jane", "right")
    provider.add("john", "right")

    async def break_it() -> None:
        provider.problem = errors.Unavailable("away")

    return Site(provider, "jane", "right", provider.sign_in, break_it)
