"""What may be exchanged for what: only the issuer's own word about whom exactly one enabled credential means, now."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from datetime import timedelta

import pytest
from joserfc.jwk import ECKey
from structlog.testing import capture_logs

from libs.common import errors
from libs.common.access.federation import is_counting, origin_of
from libs.common.resources.identity import Token
from services.identity.federation.exchange import AMBIGUOUS, REFUSED
from services.identity.federation.keys import FAILED_S
from services.identity.federation.sources import SourceKey
from services.identity.providers.issuer import KEYS_AGAIN_S, METADATA_S
from tests.identity.federation.site import AUDIENCE, SUBJECT, bot, running
from tests.identity.oidc.issuer import KEY, OTHER, lying, unsigned


def signed_with_secret(claims, secret: bytes) -> str:
    """HS256 by hand: the library refuses to take a public key for a secret, an attacker does not."""
    payload = unsigned(claims).split(".")[1]
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "one"}).encode()).decode().rstrip("=")
    mac = hmac.digest(secret, f"{head}.{payload}".encode(), "sha256")
    return f"{head}.{payload}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


async def test_a_workload_gets_a_short_lived_token_with_what_the_credential_says_and_no_more(clock):
    async with running(clock) as site:
        credential = site.credential(clusters=["east"], projects=["shop"], readOnly=True, ttlSeconds=600)
        await site.hub.put(credential)
        with capture_logs() as logged:
            exchanged = await site.exchange()
        token = await site.token(exchanged)
        assert exchanged.expires_in_s == 600
        assert (token.spec.user, token.spec.user_uid, token.spec.purpose) == ("bot", "uid-bot", "federated")
        assert (token.spec.clusters, token.spec.projects, token.spec.read_only) == (["east"], ["shop"], True)
        assert token.spec.expires_at == clock() + timedelta(seconds=600)
        assert token.spec.description == f"shop: {SUBJECT}"
        assert token.spec.client_address == "192.0.2.1"
        assert token.spec.provider == origin_of(credential)
        (line,) = [entry for entry in logged if entry["event"] == "token_exchanged"]
        assert (line["credential"], line["user"], line["subject"], line["token_id"]) == ("shop", "bot", SUBJECT, "one")
        assert exchanged.issued.token not in str(logged)
        (event,) = site.trail.events
        assert (event.action, event.outcome, event.actor, event.token) == (
            "exchange-token",
            "success",
            "bot",
            token.name,
        )
        assert (event.resource, event.name, event.address) == ("federatedcredentials", "shop", "192.0.2.1")


async def test_the_workloads_token_may_be_exchanged_again_while_it_is_good(clock):
    async with running(clock) as site:
        await site.hub.put(site.credential())
        token = site.liar.id_token()
        assert (await site.exchange(token)).issued != (await site.exchange(token)).issued
        clock.forward(361)
        assert (await site.exchange(token)).error == "invalid_grant"


CASES = [
    ("another audience", {"aud": "https://other.example"}, "audience"),
    ("no audience", {"aud": None}, "audience"),
    ("another issuer's name", {"iss": "https://evil.example"}, "no enabled credential is for this issuer"),
    ("expired", {"exp": 1}, "expired"),
    ("no exp", {"exp": None}, "no usable exp"),
    ("no iat", {"iat": None}, "no usable iat"),
    ("from the future", {"iat": 99999999999}, "from the future"),
    ("older than a day", {"iat": 1767323045 - 2 * 86_400}, "older than a day"),
    ("not yet", {"nbf": 99999999999}, "not good yet"),
    ("another subject", {"sub": "repo:acme/shop:ref:refs/heads/main2"}, "subject"),
    ("no subject", {"sub": None}, "no usable sub"),
    ("another claim", {"environment": "staging"}, "claim environment"),
]


@pytest.mark.parametrize(("change", "why"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_a_token_that_is_not_meant_is_refused_in_the_same_words_and_the_log_has_the_reason(clock, change, why):
    async with running(clock) as site:
        await site.hub.put(site.credential(claims={"environment": "production"}))
        site.liar.change |= {"environment": "production", **change}
        with capture_logs() as logged:
            exchanged = await site.exchange()
        assert (exchanged.issued, exchanged.error, exchanged.description) == (None, "invalid_grant", REFUSED)
        (line,) = [entry for entry in logged if entry["event"] == "token_exchange_refused"]
        assert why in line["reason"]
        assert line["client_address"] == "192.0.2.1"
        (event,) = site.trail.events
        assert (event.action, event.outcome, event.reason, event.by) == (
            "exchange-token",
            "failure",
            "refused",
            "nobody",
        )
        assert why in event.note


async def test_a_forged_token_of_half_characters_is_refused_and_written_down_as_any_other(clock):
    async with running(clock) as site:
        await site.hub.put(site.credential())
        head = base64.urlsafe_b64encode(b'{"alg": "\\ud800\\u001b[2J"}').rstrip(b"=").decode()
        exchanged = await site.exchange(f"{head}.e30.c2ln")
        assert (exchanged.error, exchanged.description) == ("invalid_grant", REFUSED)
        (event,) = site.trail.events
        assert (event.outcome, event.reason) == ("failure", "refused")
        assert event.note.endswith("public keys: ??[2J")


@pytest.mark.parametrize(
    "forgery",
    ["none", "public key as secret", "the key set as secret", "key of another", "unknown key", "changed after it was signed", "huge", "garbage", ""],
)  # fmt: skip
async def test_a_forged_token_is_refused_in_the_same_words(clock, forgery):
    async with running(clock) as site:
        await site.hub.put(site.credential())
        assert (await site.exchange()).issued
        liar, token = site.liar, None
        moment = int(clock().timestamp())
        claims = {"iss": liar.url, "aud": AUDIENCE, "sub": SUBJECT, "iat": moment, "exp": moment + 300}
        match forgery:
            case "none":
                token = unsigned(claims)
            case "public key as secret":
                token = signed_with_secret(claims, KEY.as_pem(private=False))
            case "the key set as secret":
                token = signed_with_secret(claims, json.dumps(KEY.as_dict(private=False)).encode())
            case "key of another":
                liar.signed_by = OTHER
            case "unknown key":
                liar.signed_by, liar.kid = OTHER, "two"
            case "changed after it was signed":
                head, _, signature = liar.id_token().split(".")
                token = f"{head}.{unsigned(claims | {'exp': moment + 9000}).split('.')[1]}.{signature}"
            case "huge":
                liar.change["padding"] = "x" * 13_000
                token = liar.id_token()
                assert len(token) > 16_384
                token = token[:16_384]
            case "garbage":
                token = "a.b.c"
            case _:
                token = ""
        exchanged = await site.exchange(token)
        assert (exchanged.issued, exchanged.error, exchanged.description) == (None, "invalid_grant", REFUSED)


async def test_an_issuer_that_no_enabled_credential_names_is_never_asked(clock):
    async with running(clock) as site, lying(clock()) as other:
        await site.hub.put(site.credential(), site.credential("off", issuer=other.url, enabled=False))
        other.change = site.liar.change
        with capture_logs():
            assert (await site.exchange(other.id_token())).error == "invalid_grant"
        assert other.fetched_keys == 0
        await site.hub.put(site.credential("on", issuer=other.url))
        assert (await site.exchange(other.id_token())).issued
        assert other.fetched_keys == 1


async def test_a_flood_of_unknown_keys_asks_the_issuer_once_in_a_while(clock):
    async with running(clock) as site:
        await site.hub.put(site.credential())
        assert (await site.exchange()).issued
        site.seconds = KEYS_AGAIN_S + 1
        site.liar.signed_by, site.liar.kid = OTHER, "two"
        token = site.liar.id_token()
        with capture_logs():
            answers = await asyncio.gather(*(site.exchange(token) for _ in range(50)))
        assert {a.error for a in answers} == {"invalid_grant"}
        assert site.liar.fetched_keys == 2
        # A new key of the issuer counts the next time that it may be asked.
        site.liar.keys = [KEY, OTHER]
        site.seconds += KEYS_AGAIN_S + 1
        assert (await site.exchange(token)).issued
        assert site.liar.fetched_keys == 3


async def test_keys_are_read_where_they_have_a_media_type_of_their_own(clock):
    async with running(clock) as site:
        site.liar.keys_type = "application/jwk-set+json"
        await site.hub.put(site.credential())
        assert (await site.exchange()).issued


async def test_a_key_that_the_issuer_took_back_counts_no_longer_than_an_hour(clock):
    async with running(clock) as site:
        await site.hub.put(site.credential())
        assert (await site.exchange()).issued
        site.liar.keys = [OTHER]
        assert (await site.exchange()).issued
        site.seconds = METADATA_S + 1
        assert (await site.exchange()).error == "invalid_grant"


async def test_an_issuer_that_does_not_answer_is_left_alone_for_a_while_and_it_is_told(clock):
    async with running(clock) as site:
        await site.hub.put(site.credential())
        site.liar.metadata = {"jwks_uri": f"{site.liar.url}/nothing"}
        with capture_logs():
            for _ in range(5):
                with pytest.raises(errors.Unavailable, match="cannot be asked for its keys"):
                    await site.exchange()
        site.liar.metadata = {}
        with pytest.raises(errors.Unavailable):
            await site.exchange()
        site.seconds = METADATA_S + FAILED_S + 1
        assert (await site.exchange()).issued


@pytest.mark.parametrize("metadata", [{"issuer": "https://evil.example"}, {"jwks_uri": "http://evil.example/keys"}, {"jwks_uri": "file:///etc/passwd"}])  # fmt: skip
async def test_metadata_that_leads_elsewhere_is_not_followed(clock, metadata):
    async with running(clock) as site:
        await site.hub.put(site.credential())
        site.liar.metadata = metadata
        with capture_logs(), pytest.raises(errors.Unavailable):
            await site.exchange()
        assert site.liar.fetched_keys == 0


async def test_keys_that_are_written_down_need_no_issuer(clock):
    key = ECKey.generate_key("P-256", {"kid": "ec", "use": "sig"}, private=True)
    async with running(clock) as site:
        jwks = json.dumps({"keys": [key.as_dict(private=False)]})
        await site.hub.put(site.credential(issuer="https://kubernetes.default.svc", jwks=jwks))
        site.liar.change["iss"] = "https://kubernetes.default.svc"
        site.liar.signed_by, site.liar.kid, site.liar.algorithm = key, "ec", "ES256"
        assert (await site.exchange()).issued
        site.liar.signed_by, site.liar.kid, site.liar.algorithm = KEY, "ec", "RS256"
        assert (await site.exchange()).error == "invalid_grant"
        assert site.liar.fetched_keys == 0


async def test_keys_of_one_credential_are_nothing_to_another_of_the_same_issuer(clock):
    async with running(clock) as site:
        planted = json.dumps({"keys": [OTHER.as_dict(private=False)]})
        await site.hub.put(bot("weak"), site.credential("strong"), site.credential("weak", user="weak", jwks=planted))
        site.liar.signed_by, site.liar.kid = OTHER, "two"
        forged = await site.token(await site.exchange())
        assert forged.spec.user == "weak"
        assert (await site.exchange(resource="strong")).error == "invalid_grant"
        site.liar.signed_by, site.liar.kid = KEY, "one"
        assert (await site.token(await site.exchange())).spec.user == "bot"


async def test_several_that_fit_are_none_until_one_is_named(clock):
    async with running(clock) as site:
        await site.hub.put(
            bot("other"), site.credential(), site.credential("wide", user="other", subject="repo:acme/*")
        )
        with capture_logs() as logged:
            exchanged = await site.exchange()
        assert (exchanged.issued, exchanged.error, exchanged.description) == (None, "invalid_request", AMBIGUOUS)
        assert "shop, wide" in str(logged)
        assert (await site.token(await site.exchange(resource="wide"))).spec.user == "other"
        assert (await site.token(await site.exchange(resource="shop"))).spec.user == "bot"
        site.liar.change["sub"] = "repo:acme/cart:ref:refs/heads/main"
        assert (await site.token(await site.exchange())).spec.user == "other"
        for name in ("shop", "nothing", "SHOP", "x" * 253):
            assert (await site.exchange(resource=name)).description == REFUSED


async def test_a_user_that_is_disabled_gone_made_again_or_a_person_is_not_exchanged_for(clock):
    async with running(clock) as site:
        await site.hub.put(site.credential(), site.credential("person", user="eve", subject="somebody"))
        site.liar.change["sub"] = "somebody"
        with capture_logs() as logged:
            assert (await site.exchange()).error == "invalid_grant"
            site.liar.change["sub"] = SUBJECT
            for change in ({"enabled": False}, {"service": False}):
                user = bot()
                for name, value in change.items():
                    setattr(user.spec, name, value)
                await site.hub.put(user)
                assert (await site.exchange()).description == REFUSED
            await site.hub.put(bot(uid="uid-another"))
            assert (await site.exchange()).description == REFUSED
            await site.hub.delete(bot())
            assert (await site.exchange()).description == REFUSED
        assert "made again" in str(logged)
        assert "gone" in str(logged)


async def test_a_burst_of_jobs_keeps_nobody_out_and_the_oldest_make_room(clock):
    async with running(clock, per_user=3, most_federated=20) as site:
        await site.hub.put(site.credential())
        first = await site.exchange()
        clock.forward(1)
        for exchanged in await asyncio.gather(*(site.exchange() for _ in range(30))):
            assert exchanged.issued
        with pytest.raises(errors.NotFound):
            await site.token(first)
        record = await site.tokens.records.read("uid-bot")
        assert len(record.tokens) == 20
        for _ in range(3):
            await site.tokens.issue(bot(), "api")
        with pytest.raises(errors.TooManyRequests):
            await site.tokens.issue(bot(), "api")
        assert (await site.exchange()).issued


@pytest.mark.parametrize("end", ["deleted", "disabled"])
async def test_tokens_of_a_credential_that_is_gone_or_disabled_end_and_others_stay(clock, end):
    async with running(clock) as site:
        credential, other = site.credential(), site.credential("cart", subject="cart")
        await site.hub.put(credential, other)
        mine = await site.token(await site.exchange())
        site.liar.change["sub"] = "cart"
        others = await site.token(await site.exchange())
        api = await site.tokens.issue(bot(), "api")
        await site.end(credential)
        assert await site.hub.get(Token, mine.name)
        if end == "deleted":
            await site.hub.delete(credential)
        else:
            await site.hub.put(site.credential(enabled=False))
        await site.end(credential)
        with pytest.raises(errors.NotFound):
            await site.hub.get(Token, mine.name)
        assert await site.hub.get(Token, others.name)
        assert await site.hub.get(Token, api.name)


async def test_a_token_counts_only_with_the_very_credential_that_it_came_by(clock):
    async with running(clock) as site:
        credential = site.credential()
        again = site.credential()
        again.metadata.uid = "uid-again"
        elsewhere = site.credential(user="other")
        origin = origin_of(credential)
        assert is_counting(origin, bot(), {"shop": credential}.get)
        for known in ({}, {"shop": again}, {"shop": site.credential(enabled=False)}, {"shop": elsewhere}):
            assert not is_counting(origin, bot(), known.get)
        assert not is_counting(origin, bot(uid="another"), {"shop": credential}.get)


async def test_keys_of_issuers_that_nobody_names_any_more_are_forgotten_and_their_number_is_bounded(clock):
    async with running(clock) as site:
        site.sources._most = 2
        credentials = [site.credential(f"c{number}", ca="", subject=f"s{number}", issuer=f"{site.liar.url}/{number}") for number in range(4)]  # fmt: skip
        await site.hub.put(*credentials)
        for credential in credentials:
            site.liar.change |= {"iss": credential.spec.issuer, "sub": credential.spec.subject}
            with capture_logs(), pytest.raises(errors.Unavailable):
                await site.exchange()
        assert list(site.sources._held) == [SourceKey.of(c.spec) for c in credentials[2:]]
        await site.hub.delete(credentials[2])
        await site.end(credentials[2])
        assert list(site.sources._held) == [SourceKey.of(credentials[3].spec)]


async def test_a_credential_that_was_narrowed_at_this_very_moment_gives_nothing(clock):
    async with running(clock) as site:
        await site.hub.put(site.credential())
        stale = site.exchanges._known.get("shop").model_copy(deep=True)
        await site.hub.put(site.credential(readOnly=True))

        class Behind:
            def all(self):
                return [stale]

        site.exchanges._known = Behind()
        with capture_logs() as logged:
            assert (await site.exchange()).error == "invalid_grant"
        assert "changed at this very moment" in str(logged)
