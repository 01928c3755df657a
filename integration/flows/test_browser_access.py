"""Roles for a while and who can do what, in a real Chromium against a whole hub: asked for, decided, reviewed, explained."""

from __future__ import annotations

import pytest

from integration.flows.looking import check_looks, enter, go
from integration.flows.test_browser import CHROMIUM, browsing

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.timeout(240),
    pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium, or set HERDSMAN_CHROMIUM"),
]
CLUSTER = b'{"apiVersion":"management.herdsman.dev/v1","kind":"Cluster","metadata":{"name":"quay"},"spec":{}}'


async def test_a_role_is_asked_for_approved_used_in_an_emergency_and_reviewed(bare_hub):
    hub, admin = bare_hub, await bare_hub.admin()
    await admin.sees("herdsman", "create", "-f", "-", stdin=CLUSTER)
    for name in ("basker", "bdecider"):
        await hub.person(name)
    await admin.must("grant", "--user", "bdecider", "--role", "cluster-owner", "--cluster", "quay")
    words = ("--cluster", "quay", "--requester", "user:basker", "--approver", "user:bdecider")
    await admin.must("access", "policy", "create", "b-on-call", "--role", "cluster-member", *words, "--longest", "4h")
    await admin.must("access", "policy", "create", "b-down", "--role", "cluster-owner", *words, "--break-glass")

    async with browsing(hub) as asker, browsing(hub) as decider:
        await enter(asker, hub, "basker")
        await enter(decider, hub, "bdecider")
        await go(decider, "#access", "There is nothing that you may ask for.")
        assert not await decider.page.locator("#decide-part").is_visible()
        await asker.page.get_by_role("link", name="Access").click()
        await asker.shows("cluster-member")
        await check_looks(asker, "access-1-offered")
        for reason in ("the <b>queue</b> is stuck", "not needed"):
            await asker.page.get_by_role("button", name="Ask by policy b-on-call").click()
            await asker.page.select_option("#ask-span", "3600")
            await asker.page.fill("#ask-reason", reason)
            await check_looks(asker, "access-2-asking")
            await asker.page.keyboard.press("Enter")
            await asker.shows("Asked: 1 approval missing.")
        await asker.page.locator("#mine-rows tr", has_text="not needed").get_by_role("button").click()
        await asker.tab_to("Take it back")
        await asker.page.keyboard.press("Enter")
        await asker.shows("The request is taken back.")

        await decider.shows("the <b>queue</b> is stuck")
        waiting = decider.page.locator("#decide-rows tr", has_text="the <b>queue</b> is stuck")
        await waiting.get_by_role("button", name="Approve").click()
        await decider.page.fill("#ask-comment", "go on")
        await check_looks(decider, "access-3-deciding")
        await decider.page.keyboard.press("Enter")
        await decider.shows("basker has the role until")
        await asker.shows("bdecider: approve – go on")

        await asker.page.get_by_role("button", name="Emergency by policy b-down").click()
        await asker.page.fill("#ask-reason", "all is down")
        await asker.page.keyboard.press("Enter")
        await asker.shows("An alarm was raised.")
        await decider.shows("Emergencies that you have to look at")
        await check_looks(decider, "access-4-review")
        await decider.page.get_by_role("button", name="It was wrong cluster-owner for basker").click()
        await decider.page.fill("#ask-comment", "it was not")
        await decider.page.keyboard.press("Enter")
        await decider.shows("The review is closed.")
        await asker.shows("Revoked")
        assert (asker.problems, decider.problems) == ([], [])


async def test_who_can_is_answered_with_the_chain_and_the_address_keeps_the_question(bare_hub):
    hub, admin = bare_hub, await bare_hub.admin()
    await hub.person("bwho")
    await admin.must("group", "create", "bteam", "bwho")
    await admin.must("grant", "--group", "bteam", "--role", "cluster-member", "--global")
    async with browsing(hub) as screen:
        page = screen.page
        await enter(screen, hub, "admin")
        await go(screen, "#access/who-can", "Who can do what, and why")
        await page.fill("#who-verb", "get")
        await page.fill("#who-resource", "deployments.apps")
        await page.keyboard.press("Enter")
        line = page.locator("#who-paths-rows tr", has_text="bwho")
        await line.wait_for()
        assert await line.locator("li").all_text_contents() == [
            "group bteam", "cluster-member", "cluster-viewer", f"binding {(await line.locator('li').last.text_content()).removeprefix('binding ')}",
        ]  # fmt: skip
        assert await screen.focused() == "who-asked"
        await check_looks(screen, "access-5-who-can")
        await page.reload()
        await line.wait_for()
        assert await page.input_value("#who-resource") == "deployments.apps"
        await page.locator("#who-me").click()
        await screen.shows("admin has which role")
        await page.go_back()
        await line.wait_for()
        await page.fill("#who-resource", "")
        await page.keyboard.press("Enter")
        await screen.shows("Required value: a right is a verb on a resource")
    async with browsing(hub) as screen:
        await enter(screen, hub, "bwho")
        await go(screen, "#access/who-can?verb=get&resource=pods", "you see only what you may see")
