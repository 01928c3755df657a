"""The identity envelope: genuine and fresh, or refused."""

from __future__ import annotations

import ast
import base64
from pathlib import Path

import msgpack
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st

from libs.common import errors
from libs.common.access.principal import Principal
from libs.common.crypto import envelope

ADA = Principal(user="ada", user_uid="u1", principal_id="local:user:u1", token="t1", clusters=["prod"])


@pytest.fixture
def pair(clock):
    private, public = envelope.generate_key_pair()
    return (
        envelope.Signer(load_pem_private_key(private, None), clock),
        envelope.Verifier(load_pem_public_key(public), clock),
    )


def test_what_was_sealed_is_what_is_opened(pair):
    signer, verifier = pair
    assert verifier.open(signer.seal(ADA)) == ADA


def test_who_owes_something_is_refused_by_whoever_does_not_look_at_it(pair):
    signer, verifier = pair
    owing = ADA.model_copy(update={"owes": ["password"]})
    with pytest.raises(errors.Denied, match="herdsman password"):
        verifier.open(signer.seal(owing))
    assert verifier.open(signer.seal(owing), owing=True) == owing


def test_only_what_helps_with_what_is_owed_opens_envelopes_of_who_owes():
    found = set()
    for file in (*Path("services").rglob("*.py"), *Path("libs").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef):
                calls = [c for c in ast.walk(node) if isinstance(c, ast.Call)]
                if any(k.arg == "owing" for c in calls if getattr(c.func, "id", "") != "Route" for k in c.keywords):
                    found.add((file.as_posix(), node.name))
    identity = "services/identity/handlers.py"
    assert found == {
        (identity, "access_own"), (identity, "change_password"), ("services/identity/sign_outs.py", "revoke"),
        ("services/identity/second_factor_handlers.py", "begin"), ("services/identity/second_factor_handlers.py", "confirm"),
        ("services/gateway/app.py", "_adapt"), ("services/gateway/app.py", "handle"),
    }  # fmt: skip


def test_an_expired_envelope_is_refused_with_a_hint_at_clocks(pair, clock):
    signer, verifier = pair
    sealed = signer.seal(ADA)
    clock.forward(envelope.LIFETIME_S + envelope.SKEW_S + 1)
    with pytest.raises(errors.Unauthenticated, match="clocks"):
        verifier.open(sealed)


def test_an_envelope_of_another_key_is_refused(pair, clock):
    _, verifier = pair
    private, _ = envelope.generate_key_pair()
    forged = envelope.Signer(load_pem_private_key(private, None), clock).seal(ADA)
    with pytest.raises(errors.Unauthenticated):
        verifier.open(forged)


def test_a_changed_payload_is_refused(pair):
    signer, verifier = pair
    _, _, signature = signer.seal(ADA).partition(".")
    changed = msgpack.packb({"p": ADA.model_copy(update={"user": "admin"}).model_dump(), "exp": 2**40})
    with pytest.raises(errors.Unauthenticated):
        verifier.open(base64.urlsafe_b64encode(changed).rstrip(b"=").decode() + "." + signature)


@given(st.text(max_size=200))
def test_any_text_is_refused_and_never_crashes(text: str):
    _, public = envelope.generate_key_pair()
    verifier = envelope.Verifier(load_pem_public_key(public), lambda: None)
    with pytest.raises(errors.Unauthenticated):
        verifier.open(text)
