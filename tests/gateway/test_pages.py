"""The UI's files over HTTP: public, typed, cached by content, under a policy that allows nothing but themselves."""

from __future__ import annotations

import re

import pytest

from services.gateway.pages import POLICY, read_files
from tests.gateway.support import Hub, real_monotonic


@pytest.fixture
async def hub(clock, tmp_path):
    async with Hub(clock, tmp_path, real_monotonic).running() as running:
        yield running


async def test_the_start_address_leads_to_the_page_without_signing_in(hub):
    async with hub.session.get("http://hub/", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (307, "/ui/")
    async with hub.session.get("http://hub/ui/") as response:
        assert (response.status, response.content_type) == (200, "text/html")
        assert response.headers["Content-Security-Policy"] == POLICY
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cache-Control"] == "private, no-cache"
        etag = response.headers["ETag"]
    async with hub.session.get("http://hub/ui/", headers={"If-None-Match": etag}) as response:
        assert response.status == 304


async def test_all_that_the_page_loads_is_there_with_its_type_and_may_be_kept_for_ever(hub):
    async with hub.session.get("http://hub/ui/") as response:
        text = await response.text()
    addresses = re.findall(r'(?:src|href)="(/[^"]+)"', text)
    assert {a.partition("?")[0] for a in addresses} >= {"/ui/app.js", "/ui/style.css"}
    async with hub.session.get(f"http://hub{next(a for a in addresses if '/app.js' in a)}") as response:
        modules = re.findall(r'from "(/[^"]+)"', await response.text())
    assert modules
    addresses += modules
    types = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    for address in addresses:
        async with hub.session.get(f"http://hub{address}") as response:
            assert response.status == 200, address
            assert response.content_type == types[address.partition("?")[0].rpartition(".")[2]]
            assert "immutable" in response.headers["Cache-Control"], address
        async with hub.session.get(f"http://hub{address.partition('?')[0]}?v=other") as response:
            assert response.headers["Cache-Control"] == "private, no-cache"


async def test_nothing_but_its_files_is_served(hub):
    for path in ("/ui/nope", "/ui/..%2fapp.py", "/ui/%2e%2e/main.py", "/ui/index.html/x"):
        async with hub.session.get(f"http://hub{path}") as response:
            assert response.status == 404, path


def test_the_page_holds_nothing_that_its_own_policy_refuses():
    page = read_files()["index.html"].body.decode()
    assert not re.search(r"<script(?![^>]*src=)|<style|style=|\son\w+=|javascript:|https?://", page)


def test_scripts_load_and_look_for_what_is_there_alone():
    files = {name: file.body.decode() for name, file in read_files().items()}
    ids = re.findall(r'\bid="([^"]+)"', files["index.html"])
    assert len(ids) == len(set(ids))
    scripts = {name: text for name, text in files.items() if name.endswith(".js")}
    loaded, todo = set(), ["app.js"]
    while todo:
        name = todo.pop()
        loaded.add(name)
        todo += [found for found in re.findall(r'"/ui/([\w.-]+)\?v=', scripts[name]) if found not in loaded]
    assert loaded == scripts.keys()
    for name, text in scripts.items():
        # Fields of the dialog are made when it is opened.
        wanted = {found for found in re.findall(r'element\("([\w-]+)"\)', text) if not found.startswith("ask-")}
        assert wanted <= set(ids), name


def test_no_script_makes_markup_or_style_of_texts():
    for name, file in read_files().items():
        if name.endswith(".js"):
            text = file.body.decode()
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(|new Function|\.style\b|srcdoc", text), name  # fmt: skip
