"""What is shown of bodies: an allow-list of kinds, bounded, and never a credential, at the highest level of any policy."""

from __future__ import annotations

import gzip
import json
import tracemalloc

import pytest

from libs.common.audit import bodies
from libs.common.audit.bodies import LIMIT, read_body, refuse_reason
from libs.common.audit.policy import Decision
from libs.common.audit.request import parse_request

EVERYTHING = Decision("RequestResponse", policy="p", named=True)
BY_STAR = Decision("RequestResponse", policy="p")
HUB = "/apis/management.herdsman.dev/v1"
JSON = "application/json"


@pytest.mark.parametrize(
    "target",
    [
        "/api/v1/namespaces/a/secrets", "/api/v1/namespaces/a/secrets/s", "/api/v1/secrets", "/api/v1/namespaces/a/serviceaccounts/s/token",
        "/apis/authentication.k8s.io/v1/tokenreviews", "/apis/certificates.k8s.io/v1/certificatesigningrequests",
        f"{HUB}/tokens", f"{HUB}/tokenrequests", f"{HUB}/kubeconfigs", f"{HUB}/registrationtokens", f"{HUB}/clusters/c/registration",
        f"{HUB}/users/ana", f"{HUB}/auditevents",
        "/v1/login", "/v1/password", "/v1/second-factor", "/v1/second-factor/confirm", "/v1/agents/register", "/v1/import/x.yaml", "/v1/logout", "/v1/token", "/v1/back-channel-logout/sso",
        "/api/v1/namespaces/a/pods/p/log", "/api/v1/namespaces/a/pods/p/exec", "/api/v1/namespaces/a/services/s/proxy/x",
        "/api/v1/pods?watch=true",
    ],
)  # fmt: skip
def test_bodies_of_credentials_and_streams_are_never_shown_whatever_a_rule_says(target):
    for method in ("GET", "POST", "PUT"):
        info = parse_request(method, target)
        if "watch" in target and info.verb != "watch":
            continue
        assert refuse_reason(info, EVERYTHING, upgrade=False)


@pytest.mark.parametrize(
    ("target", "by_star", "named"),
    [
        ("/api/v1/namespaces/a/pods/p", True, True),
        ("/apis/apps/v1/namespaces/a/deployments", True, True),
        (f"{HUB}/roletemplatebindings/b", True, True),
        ("/api/v1/namespaces/a/configmaps/c", False, True),
        ("/apis/example.com/v1/widgets", False, True),
    ],
)
def test_other_kinds_are_shown_and_unknown_ones_only_by_name(target, by_star, named):
    info = parse_request("PUT", target)
    assert (not refuse_reason(info, BY_STAR, upgrade=False)) is by_star
    assert (not refuse_reason(info, EVERYTHING, upgrade=False)) is named
    assert refuse_reason(info, EVERYTHING, upgrade=True)


def show(document, **options):
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_body(data, options.pop("size", len(data)), content_type=options.pop("content_type", JSON), **options)


def test_an_object_is_shown_without_what_only_repeats_it():
    pod = {"kind": "Pod", "metadata": {"name": "p", "managedFields": [1], "annotations": {"a": "b", "kubectl.kubernetes.io/last-applied-configuration": "{}"}}}  # fmt: skip
    assert show(pod) == {"kind": "Pod", "metadata": {"name": "p", "annotations": {"a": "b"}}}
    assert show(b"", content_type="") is None


@pytest.mark.parametrize("kind", ["Secret", "SecretList", "TokenReview", "TokenRequest", "Token", "Kubeconfig"])
def test_a_secret_kind_at_any_depth_takes_the_whole_body_out(kind):
    inner = {"kind": kind, "data": {"password": "canary"}}
    for document in (
        inner,
        {"kind": "List", "items": [{"kind": "Pod"}, inner]},
        [{"op": "add", "value": {"x": [inner]}}],
    ):
        shown = show(document)
        assert "canary" not in json.dumps(shown)
        assert "never shown" in shown["omitted"]
    padded = json.dumps({"items": [{"kind": "Pod", "pad": "x" * LIMIT}, inner]}).encode()
    assert "canary" not in json.dumps(show(json.dumps(inner).encode()[:60] + padded))


def test_tokens_in_any_value_are_masked():
    shown = json.dumps(show({"env": ["hm_name_canarycanary", "Bearer eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl"]}))
    assert "canary" not in shown
    assert "eyJ" not in shown
    assert "hm_name_***" in shown


def test_a_long_body_is_a_marked_prefix():
    data = json.dumps({"kind": "Pod", "pad": "x" * 100_000}).encode()
    shown = read_body(data[:70_000], len(data), content_type=JSON)
    assert shown["truncated"]
    assert shown["size"] == len(data)
    assert shown["prefix"].startswith('{"kind": "Pod"')
    assert len(shown["prefix"]) <= LIMIT


def test_gzip_is_read_and_a_bomb_is_not_unpacked():
    assert show(gzip.compress(b'{"kind":"Pod"}'), encoding="gzip") == {"kind": "Pod"}
    bomb = gzip.compress(b'{"a":"' + b"x" * 50_000_000 + b'"}')
    tracemalloc.start()
    shown = show(bomb, encoding="gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert shown["truncated"]
    assert peak < 2_000_000
    assert "can't be read" in show(b"no gzip", encoding="gzip")["omitted"]
    assert "encoding" in show(b"{}", encoding="br")["omitted"]


def test_chunked_bodies_are_put_together():
    assert show(b'6\r\n{"kind\r\n8;x=y\r\n":"Pod"}\r\n0\r\n\r\n', chunked=True) == {"kind": "Pod"}


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"k8s\0\n\x0ccanary", "application/vnd.kubernetes.protobuf"),
        (b"canary", "text/plain"),
        (b"kind: Pod # canary", "application/apply-patch+yaml"),
        (b'{"canary":', JSON),
        (b"[" * 60_000, JSON),
        (json.dumps({"a": json.loads("[" * 100 + "]" * 100), "b": "canary"}).encode(), JSON),
    ],
)
def test_what_is_no_readable_json_is_a_note_with_its_size(data, content_type):
    shown = show(data, content_type=content_type)
    assert shown["size"] == len(data)
    assert shown["omitted"]
    assert "canary" not in json.dumps(shown)


def test_the_table_of_shown_kinds_holds_no_secret_kind():
    for group, resources in bodies._SHOWN.items():
        assert group not in bodies._NEVER_GROUPS
        assert not resources & {"secrets", "configmaps", "tokens", "users", "kubeconfigs", "registrationtokens"}
