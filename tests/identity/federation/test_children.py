"""What a workload makes with its token is a workload's, too: it ends with the credential, and not later than the token."""

from __future__ import annotations

import pytest

from libs.common.resources.identity import Token
from tests.identity.federation.site import bot
from tests.identity.service import running

ORIGIN = "federated:shop:uid-shop"


@pytest.mark.parametrize("purpose", ["kubeconfig", "api", "exec"])
async def test_tokens_made_with_a_workloads_token_hang_on_its_credential_and_end_with_it(clock, purpose):
    async with running(clock, per_user=1) as s:
        await s.hub.put(bot())
        first = await s.tokens.issue(bot(), "federated", ttl_s=600, provider=ORIGIN, read_only=True)
        await s.tokens.issue(bot(), "api")
        made = await s.hub.get(
            Token, (await s.issue(bot(), purpose=purpose, token=first.name, read_only_caller=True, ttl_s=3600)).name
        )
        assert made.spec.provider == ORIGIN
        assert made.spec.expires_at == first.expires_at
        assert made.spec.read_only
        assert await s.tokens.revoke_all("uid-bot", provider=ORIGIN) == 2
