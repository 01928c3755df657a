"""Discovery, OpenAPI, tables and protobuf: what clients read of us, and what they send that is no JSON."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import errors
from libs.common.apiserver import discovery, openapi, openapi_v2, protobuf, surface, table
from libs.common.apiserver.protobuf import MAGIC, encode_field
from libs.common.resources.registry import BY_PLURAL, RESOURCE_TYPES

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def test_every_stored_kind_is_discovered_in_all_forms():
    aggregated = discovery.render_aggregated("v2", core=False)
    assert aggregated["items"][0]["metadata"]["name"] == "management.herdsman.dev"
    found = {r["resource"] for i in aggregated["items"] for v in i["versions"] for r in v["resources"]}
    legacy = discovery.render_resources("management.herdsman.dev", "v1")
    for rtype in RESOURCE_TYPES:
        assert rtype.plural in found
        assert rtype.plural in {r["name"] for r in legacy["resources"]}
    assert "clusters/registration" in {r["name"] for r in legacy["resources"]}
    assert discovery.render_aggregated("v2", core=True)["items"][0]["metadata"] == {}
    assert discovery.render_group("nope") is None
    assert discovery.render_resources("nope", "v1") is None
    assert {g["name"] for g in discovery.render_group_list()["groups"]} == {g for g, _ in surface.GROUP_VERSIONS if g}


def test_no_reference_dangles_and_private_never_shows():
    for group, version in surface.GROUP_VERSIONS:
        document = openapi.render_document(group, version)
        assert openapi.find_dangling_refs(document) == []
        assert "passwordHash" not in json.dumps(document)
        assert "secretHash" not in json.dumps(document)
        assert not any("/" in name for name in document["components"]["schemas"])
    assert openapi.find_dangling_refs(openapi_v2.render_document_v2()) == []
    assert openapi.find_dangling_refs({"a": {"$ref": "#/definitions/x"}}) == ["#/definitions/x"]


def test_write_operations_declare_field_validation_and_dry_run():
    paths = openapi.render_document("management.herdsman.dev", "v1")["paths"]
    for path, method in (("/users", "post"), ("/users/{name}", "put"), ("/users/{name}", "patch")):
        operation = paths["/apis/management.herdsman.dev/v1" + path][method]
        assert {"fieldValidation", "dryRun", "fieldManager"} <= {p["name"] for p in operation["parameters"]}
        assert operation["x-kubernetes-group-version-kind"]["kind"] == "User"
    assert "post" not in paths["/apis/management.herdsman.dev/v1/tokens"]


def read(data: bytes) -> dict[int, list[int | bytes]]:
    found: dict[int, list[int | bytes]] = {}
    for number, value in protobuf._read(data):
        found.setdefault(number, []).append(value)
    return found


def test_the_protobuf_form_holds_what_the_json_form_holds():
    document, written = openapi_v2.render_document_v2(), read(openapi_v2.render_protobuf())
    assert written[1] == [b"2.0"]
    definitions = [read(named) for named in read(written[9][0])[1]]
    assert [d[1][0].decode() for d in definitions] == list(document["definitions"])
    paths = [read(named) for named in read(written[8][0])[2]]
    assert [p[1][0].decode() for p in paths] == list(document["paths"])
    by_name = {p[1][0].decode(): read(p[2][0]) for p in paths}
    patch = read(by_name["/apis/management.herdsman.dev/v1/users/{name}"][8][0])
    # ParametersItem → Parameter → NonBodyParameter → QueryParameterSubSchema; its name is field 4.
    names = [read(read(read(read(p)[1][0])[2][0])[3][0])[4][0] for p in patch[8] if 2 in read(read(p)[1][0])]
    assert b"fieldValidation" in names


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (599, "9m59s"), (600, "10m"), (179 * 60, "179m"), (3 * 3600, "3h"),
        (3 * 3600 + 300, "3h5m"), (8 * 3600 + 300, "8h"), (47 * 3600, "47h"), (48 * 3600, "2d"), (50 * 3600, "2d2h"), (8 * 86400 + 7200, "8d"),
        (400 * 86400, "400d"), (730 * 86400, "2y"), (740 * 86400, "2y10d"), (3000 * 86400, "8y"),
    ],
)  # fmt: skip
def test_ages_as_kubectl_prints_them(seconds, text):
    assert table.human_duration(seconds) == text
    assert table.render_age((NOW - timedelta(seconds=seconds)).isoformat(), NOW) == text


def test_tables_show_the_columns_of_the_registry():
    user = {
        "metadata": {"name": "eve", "creationTimestamp": "2026-05-31T23:00:00Z"},
        "spec": {"enabled": True},
        "status": {},
    }
    rendered = table.render_table(BY_PLURAL["users"], [user], {"resourceVersion": "7"}, NOW)
    assert rendered["rows"][0]["cells"] == ["eve", "<none>", True, "<none>", "<none>", "False", "<none>", "60m"]
    token = {"metadata": {"name": "t"}, "spec": {"user": "a", "purpose": "api", "expiresAt": "2026-06-30T00:00:00Z"}}
    assert table.render_table(BY_PLURAL["tokens"], [token], {}, NOW)["rows"][0]["cells"][3] == "in 29d"
    for rtype in RESOURCE_TYPES:
        # A document with nothing in it must not break the column of any kind.
        row = table.render_table(rtype, [{"metadata": {}}], {}, NOW, include="None")["rows"][0]
        assert len(row["cells"]) == len(table.render_columns(rtype))
        assert "object" not in row


def envelope(kind: str, raw: bytes, version: str = "authorization.k8s.io/v1") -> bytes:
    return MAGIC + encode_field(1, encode_field(1, version) + encode_field(2, kind)) + encode_field(2, raw)


def test_a_review_as_kubectl_sends_it():
    attributes = (
        encode_field(1, "")
        + encode_field(2, "create")
        + encode_field(3, "management.herdsman.dev")
        + encode_field(5, "users")
    )
    body = envelope(
        "SelfSubjectAccessReview",
        encode_field(1, b"") + encode_field(2, encode_field(1, attributes)) + encode_field(99, 7),
    )
    assert protobuf.parse_envelope(body) == {
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {},
        "spec": {"resourceAttributes": {"verb": "create", "group": "management.herdsman.dev", "resource": "users"}},
    }  # fmt: skip
    labels = encode_field(11, encode_field(1, "a") + encode_field(2, "b"))
    namespace = protobuf.parse_envelope(envelope("Namespace", encode_field(1, encode_field(1, "n") + labels), "v1"))
    assert namespace["metadata"] == {"name": "n", "labels": {"a": "b"}}
    options = (
        encode_field(1, 30)
        + encode_field(2, encode_field(1, "uid"))
        + encode_field(4, "Background")
        + encode_field(5, "All")
    )
    assert protobuf.parse_envelope(envelope("DeleteOptions", options, "v1")) == {
        "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 30, "preconditions": {"uid": "uid"},
        "propagationPolicy": "Background", "dryRun": ["All"],
    }  # fmt: skip
    with pytest.raises(errors.UnsupportedMediaType):
        protobuf.parse_envelope(envelope("Pod", b"", "v1"))


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data):
    for body in (data, MAGIC + data, envelope("SelfSubjectAccessReview", data), envelope("DeleteOptions", data)):
        with contextlib.suppress(errors.BadRequest, errors.UnsupportedMediaType):
            protobuf.parse_envelope(body)
