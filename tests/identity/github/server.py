"""A server on loopback that speaks GitHub's documented API: authorization, tokens, accounts, organisations, teams, search, paging, rate limits.

Not imitated: what is not asked for by the provider; the page on which a person agrees, which is `agree`.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiohttp import web
from authlib.oauth2.rfc7636 import create_s256_code_challenge

CLIENT, SECRET = "Iv1.client", "app-secret"


@dataclass
class Person:
    id: int
    login: str
    orgs: list[dict[str, Any]] = field(default_factory=list)
    teams: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class GitHub:
    """`limit`: status and headers that every API call is answered with, where set."""

    people: dict[str, Person] = field(default_factory=dict)
    url: str = ""
    limit: tuple[int, dict[str, str]] | None = None
    next_page: str = ""
    codes: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def agree(self, url: str, login: str) -> dict[str, str]:
        """A person agrees on the page at `url`; what the browser comes back with."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert asked["client_id"] == CLIENT
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_hex(10)
        self.codes[code] = (login, asked["redirect_uri"], asked["code_challenge"])
        return {"code": code, "state": asked["state"]}

    async def exchange(self, request: web.Request) -> web.Response:
        form = await request.post()
        login, redirect_uri, challenge = self.codes.pop(str(form["code"]), ("", "", ""))
        right = (
            (form["client_id"], form["client_secret"]) == (CLIENT, SECRET)
            and login
            and form["redirect_uri"] == redirect_uri
            and create_s256_code_challenge(str(form["code_verifier"])) == challenge
        )
        if not right:
            return web.json_response(
                {"error": "bad_verification_code", "error_description": "The code passed is incorrect or expired."}
            )
        token = f"gho_{secrets.token_hex(10)}"
        self.tokens[token] = login
        return web.json_response({"access_token": token, "scope": "read:user,read:org", "token_type": "bearer"})

    async def check(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode():
            return web.json_response({"message": "Bad credentials"}, status=401)
        return web.json_response({"message": "Not Found"}, status=404)

    async def user(self, request: web.Request) -> web.Response:
        person = self._who(request)
        return web.json_response({"id": person.id, "login": person.login, "name": person.login.title(), "email": None})

    async def orgs(self, request: web.Request) -> web.Response:
        return self._page(request, self._who(request).orgs)

    async def teams(self, request: web.Request) -> web.Response:
        return self._page(request, self._who(request).teams)

    async def search(self, request: web.Request) -> web.Response:
        text = request.query["q"].split(" ")[0]
        orgs = {o["id"]: {**o, "type": "Organization"} for p in self.people.values() for o in p.orgs}
        found = [{"id": p.id, "login": p.login, "type": "User"} for p in self.people.values()] + list(orgs.values())
        kind = {"type:user": "User", "type:org": "Organization"}.get(request.query["q"].split(" ")[-1])
        found = [item for item in found if text in item["login"] and kind in (None, item["type"])]
        return web.json_response({"total_count": len(found), "items": found[: int(request.query["per_page"])]})

    def _who(self, request: web.Request) -> Person:
        self.calls.append(request.path)
        if self.limit is not None:
            raise _Answered(*self.limit)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        login = self.tokens.get(token)
        if login not in self.people:
            raise _Answered(401, {})
        return self.people[login]

    def _page(self, request: web.Request, items: list[dict[str, Any]]) -> web.Response:
        size, page = int(request.query.get("per_page", 30)), int(request.query.get("page", 1))
        headers = {}
        if len(items) > page * size:
            following = (
                self.next_page
                or f"{self.url}/api/v3{request.path.removeprefix('/api/v3')}?per_page={size}&page={page + 1}"
            )
            headers["Link"] = f'<{following}>; rel="next", <{self.url}/x>; rel="last"'
        return web.json_response(items[(page - 1) * size : page * size], headers=headers)


class _Answered(Exception):
    def __init__(self, status: int, headers: dict[str, str]) -> None:
        super().__init__(status)
        self.status, self.headers = status, headers


@web.middleware
async def _answers(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        return await handler(request)
    except _Answered as exc:
        return web.json_response({"message": "no"}, status=exc.status, headers=exc.headers)


@asynccontextmanager
async def serving() -> AsyncIterator[GitHub]:
    made = GitHub()
    app = web.Application(middlewares=[_answers])
    api = "/api/v3"
    app.add_routes([
        web.post("/login/oauth/access_token", made.exchange), web.post(f"{api}/applications/{{id}}/token", made.check),
        web.get(f"{api}/user", made.user), web.get(f"{api}/user/orgs", made.orgs), web.get(f"{api}/user/teams", made.teams),
        web.get(f"{api}/search/users", made.search),
    ])  # fmt: skip
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield made
    finally:
        await runner.cleanup()
