"""What every provider must do: run on the double and on each real one. Import the tests into a module that has the fixture `site`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from libs.common import errors
from services.identity.providers.base import Gone, PasswordProvider, Provider, RedirectProvider


@dataclass(frozen=True)
class Site:
    """A provider, and what is in the place behind it. `sign_in` proves one's name there, whatever the way.

    `user` is in at least one group; `disabled` (empty = the place has no such thing) has the same password. `break_it` makes the place
    unreachable for the rest of the test.
    """

    provider: Provider
    user: str
    password: str
    sign_in: Callable[[str, str], Awaitable[object]]
    break_it: Callable[[], Awaitable[None]]
    disabled: str = ""
    searches: bool = True
    names_are_ids: bool = False
    """True where the place itself takes the user name as the id that never changes."""


async def test_the_right_account_comes_with_an_immutable_id_and_its_groups(site: Site):
    identity = await site.sign_in(site.user, site.password)
    assert identity.id
    assert site.names_are_ids or identity.id != site.user
    assert identity.user_name
    assert identity.groups
    assert all(group.id and group.name for group in identity.groups)
    assert not identity.truncated
    assert (await site.sign_in(site.user, site.password)).id == identity.id


@pytest.mark.parametrize("password", ["wrong", "", " ", "\x00", "*", "x" * 1024])
async def test_a_wrong_password_is_refused_without_saying_what_was_wrong(site: Site, password):
    if not isinstance(site.provider, PasswordProvider):
        pytest.skip("people sign in on the provider's own page")
    texts = set()
    for name in (site.user, "nobody-is-called-so"):
        with pytest.raises(errors.Unauthenticated) as caught:
            await site.provider.sign_in(name, password)
        texts.add(caught.value.message)
    assert len(texts) == 1


@pytest.mark.parametrize(
    "name", ["", "*", "a*", ")(uid=*", "*)(objectClass=*", "\\", "a\x00b", "x" * 5000, "name,dc=evil", "\n", "("]
)
async def test_names_that_mean_something_to_a_directory_are_only_names(site: Site, name):
    if not isinstance(site.provider, PasswordProvider):
        pytest.skip("people sign in on the provider's own page")
    with pytest.raises(errors.Unauthenticated):
        await site.provider.sign_in(name, site.password)


async def test_a_disabled_account_is_refused_and_told_why(site: Site):
    if not site.disabled:
        pytest.skip("the place disables nobody")
    with pytest.raises(errors.HerdsmanError) as caught:
        await site.sign_in(site.disabled, site.password)
    assert isinstance(caught.value, errors.Denied | errors.Unauthenticated)


async def test_a_refresh_shows_the_account_as_it_is_now(site: Site):
    identity = await site.sign_in(site.user, site.password)
    again = await site.provider.refresh(identity.id, identity.refresh_secret)
    assert (again.id, {g.id for g in again.groups}) == (identity.id, {g.id for g in identity.groups})


async def test_an_account_that_is_not_there_is_gone(site: Site):
    with pytest.raises((Gone, errors.Unauthenticated)):
        await site.provider.refresh("00000000-0000-4000-8000-000000000000", "")


async def test_a_search_finds_by_a_part_of_the_name_and_says_when_there_is_more(site: Site):
    if not site.searches:
        pytest.skip("nothing can be searched there")
    found = await site.provider.search(site.user[:3], None, 50)
    identity = await site.sign_in(site.user, site.password)
    assert identity.id in {f.id for f in found.found if f.kind == "user"}
    one = await site.provider.search("", None, 1)
    assert len(one.found) == 1
    assert one.more
    groups = await site.provider.search("", "group", 50)
    assert groups.found
    assert {f.kind for f in groups.found} == {"group"}
    assert not (await site.provider.search("no-such-name-anywhere", None, 5)).found


async def test_a_place_that_works_passes_its_test(site: Site):
    await site.provider.test()


async def test_a_place_that_is_away_is_unavailable_and_nothing_else(site: Site):
    identity = await site.sign_in(site.user, site.password)
    await site.break_it()
    with pytest.raises((errors.Unavailable, errors.Invalid)):
        await site.provider.test()
    with pytest.raises(errors.Unavailable):
        await site.provider.refresh(identity.id, identity.refresh_secret)
    if isinstance(site.provider, PasswordProvider):
        with pytest.raises(errors.Unavailable):
            await site.provider.sign_in(site.user, site.password)


async def test_closing_twice_is_harmless(site: Site):
    await site.provider.aclose()
    await site.provider.aclose()


async def test_a_provider_is_one_kind_or_the_other(site: Site):
    assert isinstance(site.provider, PasswordProvider) != isinstance(site.provider, RedirectProvider)
