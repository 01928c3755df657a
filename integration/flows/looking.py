"""What tests of the page share: signing in, going to a part of it, and a check of what it shows by axe-core, in both colour schemes and on a narrow screen."""

from __future__ import annotations

from pathlib import Path

from axe_playwright_python.async_playwright import Axe

from integration.flows.test_browser import Screen
from integration.harness.hub import PASSWORD, Hub

NARROW, WIDE = {"width": 360, "height": 800}, {"width": 1000, "height": 700}


async def enter(screen: Screen, hub: Hub, name: str) -> None:
    """Sign in, as the administrator or one of the hub's people, and wait for the parts."""
    file = Path(hub.record()["admin_password_file"])
    admin = name == hub.record()["admin_user"]
    await screen.page.fill("#user", name)
    await screen.page.fill("#password", file.read_text().strip() if admin else PASSWORD)
    await screen.page.keyboard.press("Enter")
    await screen.shows(f"Signed in as {name}")


async def go(screen: Screen, way: str, sign: str) -> None:
    """To a part of the page by its address; `sign` is what is read there."""
    await screen.page.evaluate("(way) => { location.hash = way; }", way)
    await screen.shows(sign)


async def check_looks(screen: Screen, name: str) -> None:
    """No rule of axe-core is broken, nothing sticks out of a narrow screen; a picture for people."""
    axe = Axe()
    for scheme in ("dark", "light"):
        await screen.page.emulate_media(color_scheme=scheme)
        answer = (await axe.run(screen.page, options={"resultTypes": ["violations", "passes"]})).response
        told = [(v["id"], [n["target"] for n in v["nodes"]]) for v in answer["violations"]]
        assert told == [], (name, scheme)
        passed = {p["id"] for p in answer["passes"]}
        assert {"button-name", "color-contrast", "region"} <= passed, (name, sorted(passed))
    await screen.picture(name)
    await screen.page.set_viewport_size(NARROW)
    assert await screen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
    await screen.picture(f"{name}-narrow")
    await screen.page.set_viewport_size(WIDE)
