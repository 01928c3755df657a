"""Tokens that were made with another one go with it."""

from __future__ import annotations

from libs.common.reconcile import DONE, After
from services.identity.reconciler import keys_of_children
from tests.identity.test_handlers import ADA, running


async def test_a_token_is_swept_when_the_one_it_was_made_with_is_gone_and_not_before(clock):
    async with running(clock) as s:
        parent = await s.tokens.issue(ADA, "login")
        child = await s.tokens.issue(ADA, "exec", parent=parent.name)
        other = await s.tokens.issue(ADA, "api")
        await s.hub.settle()
        assert s.index.made_with(parent.name) == [child.name]
        woken: list[str] = []
        keys = keys_of_children(s.index)
        s.hub.informers["tokens"].subscribe(lambda change: woken.extend(keys(change)), replay=False)
        assert isinstance(await s.reconciler.reconcile(child.name), After)
        await s.tokens.revoke(parent.name)
        await s.hub.settle()
        assert woken == [child.name]
        assert await s.reconciler.reconcile(child.name) == DONE
        assert isinstance(await s.reconciler.reconcile(other.name), After)
        assert s.index.made_with(parent.name) == []
