from __future__ import annotations

import base64
import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nkeys
import pytest

from libs.common import errors
from libs.common.bus import accounts
from libs.common.bus.credentials import parse_creds, read_creds, render_creds
from libs.common.contracts import permissions
from libs.common.contracts.methods import METHODS, OWNERS, SERVICES
from libs.common.resources.registry import BUCKETS

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def claims_of(jwt: str) -> dict[str, Any]:
    """The claims, after checking the signature with the issuer's public key."""
    head, body, signature = jwt.split(".")
    claims: dict[str, Any] = json.loads(_unb64(body))
    public = base64.b32decode(claims["iss"] + "=" * (-len(claims["iss"]) % 8))[1:-2]
    from nacl.signing import VerifyKey

    VerifyKey(public).verify(f"{head}.{body}".encode(), _unb64(signature))
    return claims


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@pytest.fixture
def keys(tmp_path: Path) -> accounts.NatsKeys:
    return accounts.ensure_keys(tmp_path / "keys")


def test_keys_are_made_once_and_private(keys: accounts.NatsKeys) -> None:
    again = accounts.ensure_keys(keys.directory)
    assert again.seeds == keys.seeds
    assert len(set(keys.seeds.values())) == len(keys.seeds)
    assert stat.S_IMODE(keys.directory.stat().st_mode) == 0o700
    for name in keys.seeds:
        assert stat.S_IMODE(keys.seed_file(name).stat().st_mode) == 0o600


@pytest.mark.parametrize(("kind", "letter"), [("operator", "O"), ("account", "A"), ("user", "U")])
def test_a_seed_is_one_that_nkeys_reads(kind: str, letter: str) -> None:
    seed = accounts.generate_seed(kind)
    pair = nkeys.from_seed(bytearray(seed))
    assert pair.public_key.decode() == accounts.public_key(seed)
    assert accounts.public_key(seed).startswith(letter)


def test_only_a_whole_public_key_of_a_user_is_one() -> None:
    key = accounts.public_key(accounts.generate_seed("user"))
    assert accounts.is_user_public_key(key)
    other = "A" if key[20] != "A" else "B"
    for wrong in (
        "",
        key[:-1],
        key.lower(),
        key[:20] + other + key[21:],
        accounts.public_key(accounts.generate_seed("account")),
    ):
        assert not accounts.is_user_public_key(wrong)


def test_an_agents_jwt_is_made_out_to_its_cluster_and_holds_no_rights_of_its_own(keys: accounts.NatsKeys) -> None:
    agent = accounts.public_key(accounts.generate_seed("user"))
    claims = claims_of(
        accounts.issue_agent_jwt(keys.seed("agents-signing"), keys.public("agents"), "uid-1", agent, 3600, NOW)
    )
    assert (claims["name"], claims["sub"], claims["iss"]) == ("uid-1", agent, keys.public("agents-signing"))
    assert claims["exp"] == int(NOW.timestamp()) + 3600
    assert set(claims["nats"]) == {"type", "version", "issuer_account"}


def test_the_account_of_agents_has_no_jetstream_and_lists_the_revoked(keys: accounts.NatsKeys) -> None:
    agent = accounts.public_key(accounts.generate_seed("user"))
    jwts = accounts.account_jwts(keys, NOW, {agent: NOW})
    agents, platform = claims_of(jwts[keys.public("agents")]), claims_of(jwts[keys.public("platform")])
    assert agents["nats"]["limits"].get("disk_storage", 0) == 0
    assert agents["nats"]["revocations"] == {agent: int(NOW.timestamp())}
    assert platform["nats"]["limits"]["disk_storage"] == -1
    (scope,) = agents["nats"]["signing_keys"]
    assert scope["template"] == permissions.agent_template()
    assert all(claims_of(jwt)["iss"] == keys.public("operator") for jwt in jwts.values())


def test_a_credential_file_is_read_as_it_was_written(keys: accounts.NatsKeys, tmp_path: Path) -> None:
    text = accounts.service_credentials(keys, "identity", NOW)
    credential = parse_creds(text)
    assert render_creds(credential) == text
    assert credential.seed.encode() == keys.seed("service-identity")
    assert credential.seed not in repr(credential)
    assert claims_of(credential.jwt)["sub"] == keys.public("service-identity")
    with pytest.raises(errors.Invalid):
        parse_creds("nothing")
    with pytest.raises(errors.Unavailable):
        read_creds(tmp_path / "missing")


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_may_publish_only_what_the_contracts_say(service: str) -> None:
    allowed = permissions.service_permissions(service)
    publish, subscribe = set(allowed["pub"]["allow"]), set(allowed["sub"]["allow"])
    assert ">" not in publish | subscribe
    own = {service} & set(OWNERS) | {bucket for bucket, owner in permissions.SHORT_LIVED.items() if owner == service}
    assert {p for p in publish if p.startswith("$KV.")} == {f"$KV.{bucket}.>" for bucket in own}
    assert {p for p in publish if p.startswith("svc.")} == {m.subject for m in METHODS if service in m.callers}
    assert not any(p.startswith("up.") for p in publish)
    for bucket in set(BUCKETS) - {service}:
        stream = permissions.stream_of(bucket)
        assert not {
            p
            for p in publish
            if stream in p and ("UPDATE" in p or ("DELETE.KV" in p and "CONSUMER" not in p) or "PURGE" in p)
        }
    assert {s for s in subscribe if s.startswith("_INBOX")} == {f"{permissions.inbox_prefix(service)}.>"}
