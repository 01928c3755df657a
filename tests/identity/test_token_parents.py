"""Tokens that were made with another one go with it."""

from __future__ import annotations

import pytest

from libs.common import errors
from tests.access import made
from tests.identity.service import ADA, running


async def chain(s):
    """A sign-in, one made with it, one made with that; and one that stands by itself."""
    parent = await s.tokens.issue(ADA, "login")
    child = await s.tokens.issue(ADA, "exec", parent=parent.name)
    grandchild = await s.tokens.issue(ADA, "exec", parent=child.name)
    return parent, child, grandchild, await s.tokens.issue(ADA, "api")


async def test_tokens_go_with_the_one_they_were_made_with_in_one_write(clock):
    async with running(clock) as s:
        *family, other = await chain(s)
        revision = s.hub.stores["identity"]._revision
        assert await s.tokens.revoke(family[0].name)
        assert s.hub.stores["identity"]._revision == revision + len(family) + 1
        for gone in family:
            with pytest.raises(errors.NotFound):
                await s.token(gone.name)
        assert await s.token(other.name)
        assert (await s.tokens.records.read(ADA.uid)).tokens.keys() == {other.name}


async def test_a_token_whose_parent_went_without_a_word_is_swept_and_others_are_not(clock):
    async with running(clock) as s:
        parent, child, grandchild, other = await chain(s)
        assert await s.sweep() == set()
        await s.hub.delete(await s.token(parent.name))
        # As an older version deletes: the record still names it, until deletions are looked through.
        await s.tokens.adoption.catch_up()
        assert (await s.tokens.records.read(ADA.uid)).tokens.keys() == {other.name}
        for gone in (child, grandchild):
            with pytest.raises(errors.NotFound):
                await s.token(gone.name)


async def test_a_token_made_with_one_that_nobody_ever_saw_is_swept(clock):
    async with running(clock) as s:
        orphan = await s.tokens.issue(ADA, "exec", parent="never-there")
        bobs = await s.tokens.issue(made.user("bob"), "api")
        assert await s.sweep() == {ADA.uid}
        with pytest.raises(errors.NotFound):
            await s.token(orphan.name)
        assert await s.token(bobs.name)
