"""An issuer on loopback that lies as a test wants: a scripted server with real keys and real signatures."""

from __future__ import annotations

import asyncio
import json
import secrets
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiohttp import web
from joserfc import jws, jwt
from joserfc.jwk import OctKey, RSAKey

CLIENT = "herdsman"
EVENT = "http://schemas.openid.net/event/backchannel-logout"
KEY, OTHER = (RSAKey.generate_key(2048, {"kid": name, "use": "sig"}, private=True) for name in ("one", "two"))


@dataclass
class Liar:
    """`change` goes into the next ID token's claims (None removes one); `metadata` into the discovery document; `keys` are published."""

    now: datetime
    url: str = ""
    nonce: str = ""
    change: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    keys: list[RSAKey] = field(default_factory=lambda: [KEY])
    signed_by: Any = field(default_factory=lambda: KEY)
    algorithm: str = "RS256"
    kid: str | None = "one"
    raw_token: str | None = None
    refusal: tuple[int, dict[str, str]] | None = None
    userinfo: dict[str, Any] = field(default_factory=dict)
    delay_s: float = 0.0
    padding: int = 0
    forms: list[Mapping[str, str]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    fetched_keys: int = 0
    keys_type: str = "application/json"
    """The one that is answered: who does not accept it gets 406."""

    def id_token(self) -> str:
        moment = int(self.now.timestamp())
        claims = {
            "iss": self.url, "aud": CLIENT, "sub": "sub-1", "exp": moment + 300, "iat": moment, "nonce": self.nonce,
            "preferred_username": "jane", "groups": ["ops"], **self.change,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": self.algorithm, **({"kid": self.kid} if self.kid else {})}
        return str(jwt.encode(header, claims, self.signed_by, algorithms=[self.algorithm]))

    def logout_token(self, *, typ: str | None = "logout+jwt", **change: Any) -> str:
        """As the standard has it, but for what a test changes (None removes a claim)."""
        moment = int(self.now.timestamp())
        claims = {
            "iss": self.url, "aud": CLIENT, "sub": "sub-1", "iat": moment, "exp": moment + 120, "jti": secrets.token_hex(8),
            "events": {EVENT: {}}, **change,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": self.algorithm, **({"kid": self.kid} if self.kid else {}), **({"typ": typ} if typ else {})}
        if typ is None:
            # joserfc writes typ JWT where nothing is said.
            return str(jws.serialize_compact(header, json.dumps(claims), self.signed_by, algorithms=[self.algorithm]))
        return str(jwt.encode(header, claims, self.signed_by, algorithms=[self.algorithm]))

    async def discovery(self, _request: web.Request) -> web.Response:
        await asyncio.sleep(self.delay_s)
        document = {
            "issuer": self.url, "authorization_endpoint": f"{self.url}/authorize", "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys", "userinfo_endpoint": f"{self.url}/userinfo", "end_session_endpoint": f"{self.url}/end", **self.metadata,
        }  # fmt: skip
        return web.json_response({**document, "padding": "x" * self.padding})

    async def published(self, request: web.Request) -> web.Response:
        self.fetched_keys += 1
        if self.keys_type not in request.headers.get("Accept", ""):
            return web.Response(status=406)
        return web.json_response({"keys": [key.as_dict(private=False) for key in self.keys]})

    async def token(self, request: web.Request) -> web.Response:
        self.forms.append(dict(await request.post()))  # type: ignore[arg-type]
        self.authorizations.append(request.headers.get("Authorization", ""))
        if self.refusal is not None:
            return web.json_response(self.refusal[1], status=self.refusal[0])
        token = self.id_token() if self.raw_token is None else self.raw_token
        return web.json_response(
            {"access_token": "at", "refresh_token": "rt-2", "id_token": token, "token_type": "Bearer"}
        )

    async def info(self, request: web.Request) -> web.Response:
        self.authorizations.append(request.headers.get("Authorization", ""))
        return web.json_response(self.userinfo)


def shared_secret(text: str) -> OctKey:
    with warnings.catch_warnings():
        # That a public key is no secret is the very point of the attack.
        warnings.simplefilter("ignore")
        return OctKey.import_key(text)


def unsigned(claims: Mapping[str, Any]) -> str:
    """A token of the algorithm `none`."""
    import base64

    def part(value: Mapping[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part(claims)}."


@asynccontextmanager
async def lying(now: datetime) -> AsyncIterator[Liar]:
    made = Liar(now, nonce=secrets.token_hex(4))
    app = web.Application()
    app.add_routes([
        web.get("/.well-known/openid-configuration", made.discovery), web.get("/keys", made.published), web.post("/token", made.token),
        web.get("/userinfo", made.info),
    ])  # fmt: skip
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield made
    finally:
        await runner.cleanup()
