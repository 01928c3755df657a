from __future__ import annotations

import base64
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.resources.federation import FederatedCredentialSpec
from services.identity.federation.claims import (
    check_claims,
    find_mismatch,
    fits,
    read_unproved_issuer,
)
from services.identity.federation.shared_issuers import why_too_wide
from services.identity.foreign_token import MAX_BYTES, Refused, shown

NOW = 1_767_323_045
ISSUER = "https://issuer.example"
GITHUB = "https://token.actions.githubusercontent.com"


def part(value) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def text(header=None, claims=None) -> str:
    return f"{part({'alg': 'RS256'} if header is None else header)}.{part({'iss': ISSUER} if claims is None else claims)}.c2ln"


def claims(**change):
    made = {"iss": ISSUER, "sub": "me", "aud": "hub", "iat": NOW - 10, "exp": NOW + 300, **change}
    return {name: value for name, value in made.items() if value is not None}


def spec(**change) -> FederatedCredentialSpec:
    return FederatedCredentialSpec.model_validate(
        {"user": "bot", "issuer": ISSUER, "audiences": ["hub"], "subject": "me", **change}
    )


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("repo:acme/shop:ref:refs/heads/main", ["repo:acme/shop:ref:refs/heads/main"], ["repo:acme/shop:ref:refs/heads/main2", "Repo:acme/shop:ref:refs/heads/main", ""]),
        ("repo:acme/*:ref:refs/heads/main", ["repo:acme/shop:ref:refs/heads/main"], ["repo:acme-evil/x:ref:refs/heads/main", "xrepo:acme/shop:ref:refs/heads/main"]),
        ("a*", ["a", "ab", "a*"], ["", "b", "ba"]),
        ("a*a", ["aa", "aba"], ["a", "ab"]),
        ("a*b*c", ["abc", "axbxc", "abbcc"], ["acb", "ac", "abcd"]),
        ("a.c", ["a.c"], ["abc"]),
        ("a?[b]", ["a?[b]"], ["axb"]),
    ],
)  # fmt: skip
def test_a_star_is_any_text_and_nothing_else_is_special(pattern, matching, other):
    assert all(fits(pattern, text) for text in matching)
    assert not any(fits(pattern, text) for text in other)


@given(st.lists(st.text("ab", max_size=4), min_size=1, max_size=5), st.data())
def test_whatever_stands_for_the_stars_fits(parts, data):
    text = parts[0] + "".join(data.draw(st.text("abc", max_size=3)) + part for part in parts[1:])
    assert fits("*".join(parts), text)


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_it_agrees_with_the_plain_reading_of_a_pattern(pattern, text):
    def plain(p: str, t: str) -> bool:
        if not p:
            return not t
        if p[0] == "*":
            return any(plain(p[1:], t[i:]) for i in range(len(t) + 1))
        return bool(t) and p[0] == t[0] and plain(p[1:], t[1:])

    assert fits(pattern, text) == plain(pattern, text)


def test_a_pattern_of_stars_costs_no_time():
    began = time.perf_counter()
    assert not fits("a" + "*a" * 500 + "*b", "a" * 1000)
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(
    "token",
    [
        "", "a", "a.b", "a.b.c", "..", "a.b.c.d.e", "é.b.c", text() + "." , text().rpartition(".")[0] + ".", "[" * 9000 + ".b.c",
        f"{part([])}.{part({'iss': ISSUER})}.s", f"{part({'alg': 'RS256'})}.{base64.urlsafe_b64encode(b'[' * 9000).decode()}.s",
        text(header={}), text(header={"alg": "none"}), text(header={"alg": "None"}), text(header={"alg": "HS256"}), text(header={"alg": ["RS256"]}),
        text(claims={}), text(claims={"iss": 1}), text(claims={"iss": ""}), text(claims={"iss": "x" * 2000}), text(claims={"iss": ISSUER, "x": "y" * MAX_BYTES}),
    ],
)  # fmt: skip
def test_what_is_no_signed_token_of_bounded_size_is_refused_before_anything_is_asked(token):
    with pytest.raises(Refused):
        read_unproved_issuer(token)


def test_the_issuer_of_a_signed_token_is_read():
    assert read_unproved_issuer(text()) == ISSUER


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://evil.example"}, {"iss": f"{ISSUER}.evil.example"}, {"iss": None}, {"sub": None}, {"sub": ""}, {"sub": 7}, {"sub": "x" * 2000},
        {"exp": None}, {"exp": NOW - 60}, {"exp": "9999999999"}, {"exp": True}, {"exp": float("inf")}, {"exp": float("nan")}, {"exp": -1},
        {"iat": None}, {"iat": NOW + 61}, {"iat": NOW - 86_400 - 61}, {"iat": "1"}, {"nbf": NOW + 61}, {"nbf": "soon"}, {"nbf": None, "iat": []},
    ],
)  # fmt: skip
def test_claims_that_are_not_of_this_issuer_and_of_now_are_refused(change):
    with pytest.raises(Refused):
        check_claims(claims(**change), ISSUER, NOW)


@pytest.mark.parametrize(
    "change",
    [{}, {"exp": NOW - 59}, {"iat": NOW + 60}, {"nbf": NOW + 60}, {"iat": NOW - 86_400}, {"iss": ISSUER + "/"}, {"exp": NOW + 0.5}],
)  # fmt: skip
def test_a_clock_that_is_a_little_off_is_no_reason(change):
    check_claims(claims(**change), ISSUER, NOW)


@pytest.mark.parametrize(
    ("wanted", "said", "mismatch"),
    [
        ({}, {}, ""),
        ({}, {"aud": ["other", "hub"]}, ""),
        ({"audiences": ["one", "hub"]}, {}, ""),
        ({}, {"aud": "hub2"}, "audience"),
        ({}, {"aud": ["h", "u", "b"]}, "audience"),
        ({}, {"aud": None}, "audience"),
        ({}, {"aud": {"hub": 1}}, "audience"),
        ({}, {"sub": "me2"}, "subject"),
        ({"claims": {"ref": "refs/heads/*"}}, {"ref": "refs/heads/main"}, ""),
        ({"claims": {"ref": "refs/heads/*"}}, {"ref": "refs/tags/v1"}, "claim ref"),
        ({"claims": {"ref": "*"}}, {}, "claim ref"),
        ({"claims": {"run": "7", "protected": "true"}}, {"run": 7, "protected": True}, ""),
        ({"claims": {"protected": "true"}}, {"protected": "True"}, "claim protected"),
        ({"claims": {"groups": "*"}}, {"groups": ["a"]}, "claim groups"),
        ({"claims": {"a": "b", "c": "d"}}, {"a": "b"}, "claim c"),
    ],
)
def test_audience_subject_and_every_claim_must_match(wanted, said, mismatch):
    assert find_mismatch(spec(**wanted), claims(**said)) == mismatch


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "*"}, {"subject": "*:main"}, {"subject": ""}, {"audiences": []}, {"audiences": [""]}, {"issuer": "http://issuer.example"},
        {"issuer": "https://user@issuer.example"}, {"issuer": "https://issuer.example?x=1"}, {"issuer": "https://"}, {"ttlSeconds": 3601}, {"ttlSeconds": 0}, {"user": "system:admin"},
    ],
)  # fmt: skip
def test_credentials_that_say_too_little_or_too_much_are_refused(change):
    with pytest.raises(ValueError, match="validation error"):
        spec(**change)


@pytest.mark.parametrize(
    ("change", "fine"),
    [
        ({"subject": "repo:acme/shop:ref:refs/heads/main"}, True),
        ({"subject": "repo:acme/*"}, True),
        ({"subject": "repo:*"}, False),
        ({"subject": "repo:*/shop:ref:refs/heads/main"}, False),
        ({"subject": "r*"}, False),
        ({"subject": "r*", "claims": {"repository_owner_id": "4242"}}, True),
        ({"subject": "r*", "claims": {"repository": "*/shop"}}, False),
        ({"subject": "r*", "claims": {"ref": "refs/heads/main"}}, False),
    ],
)
def test_for_an_issuer_where_everybody_has_tokens_it_must_say_whose(change, fine):
    assert (why_too_wide(spec(issuer=GITHUB, **change)) == "") is fine
    assert why_too_wide(spec(**change)) == ""


def test_a_strangers_text_breaks_no_line_of_a_log():
    assert shown("a\nb\x1b[31m" + "c" * 500) == "a?b?[31m" + "c" * 192
