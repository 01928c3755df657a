"""GitHub, and GitHub Enterprise Server by its URL: people, organisations and teams by their numeric ids, over the documented REST API.

Sources: GitHub docs "Authorizing OAuth apps", "Rate limits for the REST API", "Using pagination in the REST API", "List organizations for the
authenticated user", "List teams for the authenticated user".
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from libs.common import errors
from libs.common.observe import log
from libs.common.resources.providers import GitHubSettings, IdentityProvider
from services.identity.providers.base import Begun, Found, Gone, Group, Identity, Kind, Search
from services.identity.providers.web import Answer, Web

PUBLIC = "https://github.com"
SCOPES = "read:user user:email read:org"
PAGE, MAX_PAGES = 100, 20
_FAILED = "the sign-in at GitHub failed: try again, and tell an administrator if that does not help"
_NEXT = re.compile(r'<([^<>]+)>;\s*rel="next"')
_LONGEST_WAIT_S = 3600


def make_github(resource: IdentityProvider, settings: GitHubSettings) -> GitHubProvider:
    return GitHubProvider(resource.name, settings)


class GitHubProvider:
    """Implements `RedirectProvider`. Organisations are groups `org:<id>`, teams are groups `team:<id>`."""

    def __init__(self, name: str, settings: GitHubSettings) -> None:
        self._name = name
        self._settings = settings
        self._api = "https://api.github.com" if settings.url == PUBLIC else f"{settings.url}/api/v3"
        self._web = Web(name, settings.ca, settings.timeout_seconds)

    async def test(self) -> None:
        """Whether GitHub knows the app: a token that cannot be is checked with the app's id and secret, and must be unknown, not us."""
        answer = await self._web.post_json(
            f"{self._api}/applications/{quote(self._settings.client_id)}/token", {"access_token": "none"},
            user=self._settings.client_id, password=self._settings.client_secret,
        )  # fmt: skip
        if answer.status in (404, 422):
            return
        if answer.status == 401:
            raise errors.Invalid("GitHub refuses the app: check clientId and clientSecret")
        self._check(answer)
        raise errors.Unavailable(f"{self._api} answered {answer.status}: is url the address of GitHub?")

    async def begin(self, redirect_uri: str, state: str) -> Begun:
        verifier = secrets.token_urlsafe(48)
        url = prepare_grant_uri(
            f"{self._settings.url}/login/oauth/authorize", self._settings.client_id, "code", redirect_uri, scope=SCOPES, state=state,
            code_challenge=create_s256_code_challenge(verifier), code_challenge_method="S256",
        )  # fmt: skip
        return Begun(str(url), {"verifier": verifier})

    async def finish(self, redirect_uri: str, parameters: Mapping[str, str], secrets: Mapping[str, str]) -> Identity:
        if parameters.get("error"):
            self._log("refused by the provider", parameters)
            if parameters["error"] == "access_denied":
                raise errors.Denied("you did not let this hub know who you are at GitHub")
            raise errors.Unauthenticated(_FAILED)
        code = parameters.get("code", "")
        if not code:
            raise errors.BadRequest("GitHub's answer holds no code")
        settings = self._settings
        answer = await self._web.post(
            f"{settings.url}/login/oauth/access_token",
            {
                "client_id": settings.client_id, "client_secret": settings.client_secret, "code": code, "redirect_uri": redirect_uri,
                "code_verifier": secrets["verifier"],
            },
        )  # fmt: skip
        self._check(answer)
        token = answer.object.get("access_token")
        # GitHub answers 200 with an `error` for a code that is wrong.
        if answer.status != 200 or not isinstance(token, str) or not token:
            self._log(
                "the code was refused", {"status": str(answer.status), **{k: str(v) for k, v in answer.object.items()}}
            )
            raise errors.Unauthenticated(_FAILED)
        return await self._identity(token, None)

    async def refresh(self, account_id: str, refresh_secret: str) -> Identity:
        """With the token of the last sign-in, which GitHub ends when the person or the organisation takes the app's access away."""
        if not refresh_secret:
            raise errors.Unauthenticated("GitHub can only be asked when the person signs in")
        return await self._identity(refresh_secret, account_id)

    async def search(self, text: str, kind: Kind | None, limit: int) -> Search:
        """Public users and organisations by a part of their name. Teams are no public matter: people bring them along."""
        wanted = {None: "", "user": " type:user", "group": " type:org"}[kind]
        query = quote(f"{text} in:login{wanted}")
        answer = await self._web.get(
            f"{self._api}/search/users?q={query}&per_page={limit}",
            user=self._settings.client_id,
            password=self._settings.client_secret,
        )
        self._check(answer)
        if answer.status != 200:
            raise errors.Unavailable(f"GitHub's search answered {answer.status}")
        items = [
            item
            for item in answer.object.get("items") or ()
            if isinstance(item, dict) and isinstance(item.get("id"), int)
        ]
        found = [
            Found("group", f"org:{item['id']}", str(item.get("login")))
            if item.get("type") == "Organization"
            else Found("user", str(item["id"]), str(item.get("login")))
            for item in items
        ]
        return Search(tuple(found[:limit]), int(answer.object.get("total_count") or 0) > limit)

    async def end_session_url(self, hint: str, return_to: str, state: str) -> str:
        """GitHub ends nobody's session for others."""
        return ""

    async def aclose(self) -> None:
        await self._web.aclose()

    # ── inside ──

    async def _identity(self, token: str, expected: str | None) -> Identity:
        answer = await self._get(token, f"{self._api}/user")
        person = answer.object
        if not isinstance(person.get("id"), int) or not person.get("login"):
            raise errors.Unavailable("GitHub's answer shows no account")
        if expected is not None and str(person["id"]) != expected:
            raise Gone("GitHub answered for another account")
        organizations, more_orgs = await self._list(token, f"{self._api}/user/orgs?per_page={PAGE}")
        self._check_organization(organizations)
        teams, more_teams = await self._list(token, f"{self._api}/user/teams?per_page={PAGE}")
        groups = [Group(f"org:{o['id']}", str(o.get("login") or o["id"])) for o in organizations]
        for team in teams:
            owner = team.get("organization")
            prefix = f"{owner.get('login')}/" if isinstance(owner, dict) else ""
            groups.append(Group(f"team:{team['id']}", f"{prefix}{team.get('slug') or team['id']}"))
        truncated = (
            f"you are in more than {PAGE * MAX_PAGES} organisations or teams: only so many count"
            if more_orgs or more_teams
            else ""
        )
        return Identity(
            id=str(person["id"]), user_name=str(person["login"]), display_name=str(person.get("name") or ""),
            email=str(person.get("email") or ""), groups=tuple(groups), truncated=truncated, refresh_secret=token,
        )  # fmt: skip

    def _check_organization(self, organizations: list[dict[str, Any]]) -> None:
        allowed = {name.casefold() for name in self._settings.organizations}
        if allowed and not allowed & {str(o.get("login") or "").casefold() for o in organizations}:
            raise Gone(
                "you are in none of the organisations that may sign in here, or the organisation has not let this app see its members: ask an administrator"
            )

    async def _list(self, token: str, address: str) -> tuple[list[dict[str, Any]], bool]:
        """All pages, and whether there are more than are read. Only pages of the same API are followed."""
        found: list[dict[str, Any]] = []
        here = urlsplit(self._api).netloc
        for _ in range(MAX_PAGES):
            answer = await self._get(token, address)
            if not isinstance(answer.body, list):
                raise errors.Unavailable("GitHub's answer is no list")
            found += [item for item in answer.body if isinstance(item, dict) and isinstance(item.get("id"), int)]
            following = _NEXT.search(answer.headers.get("link", ""))
            if following is None:
                return found, False
            address = following[1]
            if urlsplit(address).netloc != here or urlsplit(address).scheme != urlsplit(self._api).scheme:
                raise errors.Unavailable("GitHub's next page is somewhere else")
        return found, True

    async def _get(self, token: str, address: str) -> Answer:
        answer = await self._web.get(
            address,
            headers={
                "Authorization": f"Bearer {token}",
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": "2022-11-28",
            },
        )
        if answer.status == 401:
            raise Gone("GitHub no longer accepts the sign-in of this account: sign in again")
        self._check(answer)
        if answer.status != 200:
            self._log(
                "a question was refused",
                {"status": str(answer.status), "error": str(answer.object.get("message") or "")},
            )
            raise errors.Unavailable(f"GitHub answered {answer.status}: try again soon, or tell an administrator")
        return answer

    @staticmethod
    def _check(answer: Answer) -> None:
        """Raises Unavailable with the time to wait where GitHub says that it was asked too much, or does not answer."""
        limited = answer.status == 429 or (
            answer.status == 403
            and (answer.headers.get("x-ratelimit-remaining") == "0" or "retry-after" in answer.headers)
        )
        if limited:
            wait_s = _wait_s(answer.headers)
            raise errors.Unavailable(f"GitHub was asked too much: try again in {wait_s} s", retry_after_s=wait_s)
        if answer.status >= 500:
            raise errors.Unavailable("GitHub does not answer right now: try again soon")

    def _log(self, what: str, facts: Mapping[str, str]) -> None:
        shown = {k: str(v)[:200] for k, v in facts.items() if k in ("error", "error_description", "status")}
        log.get("identity").warning("provider_answer_refused", provider=self._name, what=what, **shown)


def _wait_s(headers: Mapping[str, str]) -> int:
    for name, since in (("retry-after", 0.0), ("x-ratelimit-reset", time.time())):
        text = headers.get(name, "")
        if text.isascii() and text.isdigit():
            return max(1, min(_LONGEST_WAIT_S, round(int(text) - since)))
    return 60
