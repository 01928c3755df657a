"""Projects in a real Chromium against a whole hub with a real cluster: what is offered to whom, what is refused, and what strangers' texts can do (nothing)."""

from __future__ import annotations

import json

import pytest

from integration.flows.looking import check_looks, enter, go
from integration.flows.test_browser import CHROMIUM, browsing, playwright
from integration.harness.hub import eventually

pytestmark = [
    pytest.mark.kubelab,
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.timeout(240),
    pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium, or set HERDSMAN_CHROMIUM"),
]
CREATE = """async ([project, body]) => {
  const proof = document.cookie.split("; ").find((one) => one.startsWith("__Host-herdsman-csrf=")).split("=")[1];
  const headers = {"Content-Type": "application/json", "X-CSRF-Token": proof};
  const answer = await fetch(`/v1/projects/${project}/namespaces`, {method: "POST", headers, body: JSON.stringify(body)});
  return [answer.status, (await answer.json()).message];
}"""
LONGEST = "n" * 63
HOSTILE = "<img src=x onerror='window.hacked=1'>\u202egpj.exe"


def visible(screen, selector: str):
    return screen.page.locator(selector).locator("visible=true")


async def test_an_owner_is_offered_what_an_owner_may_and_a_member_sees(hub):
    admin = await hub.admin()
    for name in ("bolga", "bmia"):
        await hub.person(name)
    await admin.sees("local", "create", "namespace", "shelf")
    await admin.must("project", "create", "bshop", "local/shelf", "--display-name", "The shop")
    await admin.must("project", "quota", "bshop", "pods=10")
    await admin.must("grant", "--user", "bolga", "--role", "project-owner", "--project", "bshop")
    await admin.must("grant", "--user", "bmia", "--role", "project-member", "--project", "bshop")

    async with browsing(hub) as screen:
        await enter(screen, hub, "bolga")
        page = screen.page
        await page.get_by_role("link", name="Projects").click()
        await screen.shows("The shop")
        await screen.shows("pods 0 of 10 (0 %)", timeout_s=40)
        await check_looks(screen, "projects-1-list")
        await page.get_by_role("link", name="The shop").click()
        await screen.shows("Project The shop")
        await screen.shows("pods 0 of 10 (0 %)")
        assert await screen.focused() == "project-title"
        await visible(screen, "#grant-part").wait_for()
        await visible(screen, "#create-part").wait_for()
        # Bringing in, moving and taking out want the right to update the cluster, which no project gives.
        assert await visible(screen, "#bring-part").count() == 0
        assert await page.get_by_role("button", name="Take out").count() == 0

        # A namespace is made; what is typed meanwhile outlives the list being filled again.
        await page.locator("#create-part summary").click()
        await page.fill("#create-name", "shelf")
        await page.keyboard.press("Enter")
        await screen.shows('namespaces "shelf" already exists')
        assert await screen.focused() == "create-name"
        assert [p for p in screen.problems if "409" not in p] == []
        screen.problems.clear()
        await page.fill("#create-name", LONGEST)
        await page.keyboard.press("Enter")
        await screen.shows(f"Namespace local/{LONGEST} is made.", timeout_s=20)
        await page.fill("#create-name", "half of a na")
        await screen.shows("pods 0 of 5 (0 %)", timeout_s=20)
        async with page.expect_response(lambda answer: answer.url.endswith("/projects/bshop")):
            pass
        assert await page.input_value("#create-name") == "half of a na"

        # Somebody is let in by search, with the keyboard alone, and the command line knows the same binding.
        await hub.person("bviv")
        await page.locator("#grant-part summary").click()
        await page.locator("#grant-search").focus()
        await page.keyboard.type("bviv")
        await screen.shows("1 found.")
        await page.select_option("#grant-role", "project-viewer")
        await check_looks(screen, "projects-2-one")
        await page.locator("#grant-reason").focus()
        await page.keyboard.press("Enter")
        await screen.shows("bviv has the role project-viewer now.")
        again = await (await hub.person("bolga")).herdsman(
            "grant", "--user", "bviv", "--role", "project-viewer", "--project", "bshop"
        )
        assert "was granted already" in again.err
        await page.get_by_role("button", name="Take away project-viewer of bviv").click()
        await check_looks(screen, "projects-3-dialog")
        assert await screen.focused() == "ask-cancel"
        await page.keyboard.press("Escape")
        assert "project-viewer of bviv" in await page.evaluate("document.activeElement.getAttribute('aria-label')")
        await page.keyboard.press("Enter")
        await screen.tab_to("Take it away")
        await page.keyboard.press("Enter")
        await screen.shows("bviv no longer has the role project-viewer.")

        # Reload stays, back goes back.
        await page.reload()
        await screen.shows("Project The shop")
        await page.go_back()
        await screen.shows("Namespaces of one or many clusters")
        assert screen.problems == []

    async with browsing(hub) as screen:
        await enter(screen, hub, "bmia")
        await go(screen, "#projects/bshop", "Project The shop")
        await screen.shows("You see your own roles alone.")
        await screen.shows("bmia")
        for part in ("#create-part", "#bring-part", "#grant-part"):
            assert await visible(screen, part).count() == 0, part
        assert await screen.page.locator("#project").get_by_role("button").locator("visible=true").count() == 0
        await check_looks(screen, "projects-4-member")
        assert screen.problems == []
        status, message = await screen.page.evaluate(CREATE, ["bshop", {"cluster": "local", "namespace": "mine"}])
        assert (status, "bmia" in message) == (403, True)
        await go(screen, "#projects/nothing", "There is no such project, or you may not see it.")


async def test_strangers_texts_stay_texts_and_fit(hub):
    admin = await hub.admin()
    await admin.must(
        "project", "create", "p" * 63, "--display-name", HOSTILE, "--description", "\u2067x\u0007" + "w" * 300
    )
    async with browsing(hub) as screen:
        await enter(screen, hub, "admin")
        await go(screen, "#projects", "onerror")
        assert await screen.page.locator("main img, main script, main [onerror]").count() == 0
        await check_looks(screen, "projects-5-hostile-list")
        await go(screen, f"#projects/{'p' * 63}", "www")
        await screen.shows("<img src=x onerror='window.hacked=1'>U+202Egpj.exe")
        await screen.shows("U+2067xU+0007")
        assert await screen.page.locator("main img, main script, main [onerror]").count() == 0
        await check_looks(screen, "projects-6-hostile")
        assert await screen.page.evaluate("window.hacked") is None
        assert (
            await screen.page.evaluate("getComputedStyle(document.querySelector('#project-title bdi')).unicodeBidi")
            == "isolate"
        )
        # An address is a stranger's text as well.
        await go(screen, "#projects/%3Cimg%20src%3Dx%20onerror%3D'window.hacked%3D1'%3E", "There is no such project")
        await go(screen, "#projects/%E0%A4%A", "Work with kubectl")
        assert await screen.page.evaluate("window.hacked") is None


async def test_namespaces_come_move_and_go_and_projects_are_made(hub):
    admin = await hub.admin()
    await hub.person("btom")
    for name in ("bcome", "bstay"):
        await admin.sees("local", "create", "namespace", name)
    template = {"apiVersion": "management.herdsman.dev/v1", "kind": "ProjectTemplate", "metadata": {"name": "bsandbox"}, "spec": {"clusters": ["local"], "quota": {"pods": "5"}}}  # fmt: skip
    rules = [
        {"apiGroups": ["management.herdsman.dev"], "resources": ["projecttemplates/projects"], "resourceNames": ["bsandbox"], "verbs": ["create"]},
        {"apiGroups": ["management.herdsman.dev"], "resources": ["projecttemplates"], "verbs": ["get", "list"]},
    ]  # fmt: skip
    role = {"apiVersion": "management.herdsman.dev/v1", "kind": "RoleTemplate", "metadata": {"name": "bsandbox-user"}, "spec": {"scope": "global", "hubRules": rules}}  # fmt: skip
    for document in (template, role):
        await admin.sees("herdsman", "create", "-f", "-", stdin=json.dumps(document).encode())
    await admin.must("grant", "--user", "btom", "--role", "bsandbox-user", "--global")
    async with browsing(hub) as screen:
        page = screen.page
        await enter(screen, hub, "admin")
        for name in ("bone", "btwo"):
            await go(screen, "#projects", "Make a project")
            await page.locator("#make-part").evaluate("(part) => { part.open = true; }")
            await page.select_option("#make-from", "blank")
            await page.fill("#make-name", name)
            await page.keyboard.press("Enter")
            await screen.shows(f"Project {name} is made.")
        await go(screen, "#projects/bone", "It has no namespaces yet.")
        await page.locator("#bring-part summary").click()
        for name in ("kube-system", "bcome"):
            await page.fill("#bring-name", name)
            await page.keyboard.press("Enter")
            await screen.shows(
                "belongs to the cluster itself" if name == "kube-system" else "Namespace local/bcome is in the project."
            )
        await page.get_by_role("button", name="Move namespace local/bcome").click()
        await page.fill("#ask-target", "nowhere")
        await page.keyboard.press("Enter")
        await playwright.expect(page.locator("#ask-problem")).to_contain_text("not found")
        await page.fill("#ask-target", "btwo")
        await page.keyboard.press("Enter")
        await screen.shows("Namespace local/bcome is now in project btwo.")
        await go(screen, "#projects/btwo", "bcome")
        await page.get_by_role("button", name="Take out namespace local/bcome").click()
        await screen.tab_to("Take it out")
        await page.keyboard.press("Enter")
        await screen.shows("Namespace local/bcome is in no project any more.")
        assert "namespace/bcome" in await admin.sees("local", "get", "namespaces", "-o", "name")

    async with browsing(hub) as screen:
        page = screen.page
        await enter(screen, hub, "btom")
        await page.get_by_role("link", name="Projects").click()
        await page.locator("#make-part summary").click()
        assert await page.locator("#make-from option").all_text_contents() == ["bsandbox"]
        await page.fill("#make-name", "btom-box")
        await page.keyboard.press("Enter")
        await screen.shows("Project btom-box is made.")
        await screen.shows("pods 0 of 5 (0 %)", timeout_s=30)
        assert screen.problems == []
        await go(screen, "#projects", "Make a project")
        await page.fill("#make-name", "btom-box-2")
        await page.keyboard.press("Enter")
        await screen.shows("which is as many as it gives")
        # Whatever is shown goes with the session, and the address stays for the next one.
        screen.problems.clear()
        tom = await hub.person("btom")
        sessions = json.loads(await tom.sees("herdsman", "get", "tokens", "-o", "json"))["items"]
        (session,) = [t["metadata"]["name"] for t in sessions if t["spec"]["purpose"] == "session"]
        await tom.sees("herdsman", "delete", "token", session, "--wait=false")
        await screen.shows("Your session has ended. Sign in again.")
        assert "btom-box" not in await page.locator("main").inner_html()
        assert await page.input_value("#make-name") == ""
        await enter(screen, hub, "btom")
        await screen.shows("btom-box")


async def test_a_cluster_that_is_away_is_told_of(hub):
    admin = await hub.admin()
    away = {"apiVersion": "management.herdsman.dev/v1", "kind": "Cluster", "metadata": {"name": "baway"}, "spec": {}}
    await admin.sees("herdsman", "create", "-f", "-", stdin=json.dumps(away).encode())
    await admin.must("project", "create", "bfar")
    async with browsing(hub) as screen:
        await enter(screen, hub, "admin")
        await go(screen, "#projects/bfar", "It has no namespaces yet.")
        await screen.page.locator("#create-part summary").click()
        await screen.page.select_option("#create-cluster", "baway")
        await screen.page.fill("#create-name", "later")
        await screen.page.keyboard.press("Enter")
        await screen.shows("is asked for and not there yet")

        async def is_told() -> bool:
            text = await screen.page.locator("#namespaces-rows").inner_text()
            return "Pending since" in text and "not connected" in text

        await eventually(is_told, 20)
        await screen.page.locator("#namespaces").scroll_into_view_if_needed()
        await check_looks(screen, "projects-7-pending")
    await admin.must("project", "delete", "bfar", "--yes")
    await admin.sees("herdsman", "delete", "cluster", "baway", "--wait=false")


async def test_more_projects_than_a_page_come_with_a_button(bare_hub):
    admin = await bare_hub.admin()
    names = [f"many-{number:03}" for number in range(502)]
    kind = {"apiVersion": "management.herdsman.dev/v1", "kind": "Project"}
    items = [{**kind, "metadata": {"name": name}} for name in names]
    many = json.dumps({"apiVersion": "v1", "kind": "List", "items": items}).encode()
    await admin.sees("herdsman", "create", "-f", "-", stdin=many, timeout_s=120)
    try:
        async with browsing(bare_hub) as screen:
            await enter(screen, bare_hub, "admin")
            await go(screen, "#projects", "many-000")
            rows = screen.page.locator("#project-list-rows tr")
            assert await rows.count() == 500
            await screen.page.locator("#more-projects").focus()
            await screen.page.keyboard.press("Enter")
            await screen.shows("many-501")
            assert await rows.count() >= 502
            assert not await screen.page.locator("#more-projects").is_visible()
            assert screen.problems == []
    finally:
        await admin.kubectl("herdsman", "delete", "--wait=false", "-f", "-", stdin=many, timeout_s=120)
