"""Method and path → verb and object, as a table; and what is written down of an address."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.audit import request
from libs.common.audit.event import mask_uri
from libs.common.audit.request import is_long_running, parse_request

CORE, HUB = "/api/v1", "/apis/management.herdsman.dev/v1"
#       method, target, verb, group, version, resource, subresource, namespace, name
TABLE = [
    ("GET", f"{CORE}/pods", "list", "", "v1", "pods", "", "", ""),
    ("GET", f"{CORE}/pods?watch=true", "watch", "", "v1", "pods", "", "", ""),
    ("GET", f"{CORE}/pods?watch=1&limit=5", "watch", "", "v1", "pods", "", "", ""),
    ("GET", f"{CORE}/pods?watch=false", "list", "", "v1", "pods", "", "", ""),
    ("GET", f"{CORE}/pods?watch=0", "list", "", "v1", "pods", "", "", ""),
    ("GET", f"{CORE}/pods?watch", "watch", "", "v1", "pods", "", "", ""),
    # As an API server undoes escapes, in names, too; a pair that it can't read is none to it.
    ("GET", f"{CORE}/pods?w%61tch=1", "watch", "", "v1", "pods", "", "", ""),
    ("GET", f"{CORE}/pods?watch=%30", "list", "", "v1", "pods", "", "", ""),
    ("GET", f"{CORE}/pods?watch=fal%73e", "list", "", "v1", "pods", "", "", ""),
    ("GET", f"{CORE}/pods?watch=%zz", "list", "", "v1", "pods", "", "", ""),
    ("GET", f"{CORE}/pods?watch=%3", "list", "", "v1", "pods", "", "", ""),
    ("GET", f"{CORE}/pods?watch=1;a", "list", "", "v1", "pods", "", "", ""),
    ("GET", f"{CORE}/pods?watch=%zz&watch=1", "watch", "", "v1", "pods", "", "", ""),
    ("GET", f"{CORE}/pods?+watch=1", "list", "", "v1", "pods", "", "", ""),
    ("GET", f"{CORE}/pods?field%53elector=metadata.name%3Dp", "list", "", "v1", "pods", "", "", "p"),
    ("GET", f"{CORE}/pods?notwatch=true", "list", "", "v1", "pods", "", "", ""),
    ("HEAD", f"{CORE}/pods", "list", "", "v1", "pods", "", "", ""),
    ("GET", f"{CORE}/namespaces/a/pods/p", "get", "", "v1", "pods", "", "a", "p"),
    ("GET", f"{CORE}/namespaces/a/pods/p?watch=true", "get", "", "v1", "pods", "", "a", "p"),
    ("GET", f"{CORE}/namespaces/a/pods/p/log?follow=true", "get", "", "v1", "pods", "log", "a", "p"),
    ("GET", f"{CORE}/namespaces/a/pods?fieldSelector=metadata.name%3Dp", "list", "", "v1", "pods", "", "a", "p"),
    ("GET", f"{CORE}/namespaces/a/pods?watch=1&fieldSelector=metadata.name=p", "watch", "", "v1", "pods", "", "a", "p"),
    ("POST", f"{CORE}/namespaces/a/pods", "create", "", "v1", "pods", "", "a", ""),
    ("PUT", f"{CORE}/namespaces/a/pods/p/status", "update", "", "v1", "pods", "status", "a", "p"),
    ("PATCH", f"{CORE}/namespaces/a/pods/p", "patch", "", "v1", "pods", "", "a", "p"),
    ("DELETE", f"{CORE}/namespaces/a/pods/p", "delete", "", "v1", "pods", "", "a", "p"),
    ("DELETE", f"{CORE}/namespaces/a/pods", "deletecollection", "", "v1", "pods", "", "a", ""),
    ("POST", f"{CORE}/namespaces/a/pods/p/exec?command=sh", "create", "", "v1", "pods", "exec", "a", "p"),
    ("POST", f"{CORE}/namespaces/a/serviceaccounts/s/token", "create", "", "v1", "serviceaccounts", "token", "a", "s"),
    ("GET", f"{CORE}/namespaces", "list", "", "v1", "namespaces", "", "", ""),
    ("GET", f"{CORE}/namespaces/a", "get", "", "v1", "namespaces", "", "a", "a"),
    ("PUT", f"{CORE}/namespaces/a/finalize", "update", "", "v1", "namespaces", "finalize", "a", "a"),
    ("GET", f"{CORE}/namespaces/a/status", "get", "", "v1", "namespaces", "status", "a", "a"),
    ("GET", f"{CORE}/watch/namespaces/a/pods", "watch", "", "v1", "pods", "", "a", ""),
    ("GET", f"{CORE}/watch/pods", "watch", "", "v1", "pods", "", "", ""),
    ("GET", f"{CORE}/proxy/nodes/n", "proxy", "", "v1", "nodes", "", "", "n"),
    ("GET", f"{CORE}/namespaces/a/services/s:80/proxy/x/y", "get", "", "v1", "services", "proxy", "a", "s:80"),
    ("GET", f"{CORE}/nodes/n/proxy/metrics", "get", "", "v1", "nodes", "proxy", "", "n"),
    # An API server undoes escapes before it looks for the parts of a path.
    ("GET", f"{CORE}/namespaces/a/pods/p%2Fq", "get", "", "v1", "pods", "q", "a", "p"),
    ("POST", f"{CORE}/namespaces/a/pods/p%2fexec?command=sh", "create", "", "v1", "pods", "exec", "a", "p"),
    ("GET", f"{CORE}/namespaces/a%2Fsecrets", "list", "", "v1", "secrets", "", "a", ""),
    ("GET", "/api%2Fv1/secrets", "list", "", "v1", "secrets", "", "", ""),
    ("GET", f"{CORE}/namespaces/a/pods/p%252Fq", "get", "", "v1", "pods", "", "a", "p%2Fq"),
    ("GET", "/apis/apps/v1/deployments", "list", "apps", "v1", "deployments", "", "", ""),
    ("PATCH", "/apis/apps/v1/namespaces/a/deployments/d/scale", "patch", "apps", "v1", "deployments", "scale", "a", "d"),
    ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "create", "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "", "", ""),
    ("GET", f"{HUB}/clusters", "list", "management.herdsman.dev", "v1", "clusters", "", "", ""),
    ("POST", f"{HUB}/clusters/c/registration", "create", "management.herdsman.dev", "v1", "clusters", "registration", "", "c"),
    ("GET", f"{HUB}/auditevents?watch=true", "watch", "management.herdsman.dev", "v1", "auditevents", "", "", ""),
    # no resources: the method in lower case
    ("GET", "/", "get", "", "", "", "", "", ""),
    ("GET", "/api", "get", "", "", "", "", "", ""),
    ("GET", "/api/v1", "get", "", "", "", "", "", ""),
    ("GET", "/apis/apps", "get", "", "", "", "", "", ""),
    ("GET", "/apis/apps/v1", "get", "", "", "", "", "", ""),
    ("GET", f"{CORE}/watch", "get", "", "", "", "", "", ""),
    ("GET", "/healthz", "get", "", "", "", "", "", ""),
    ("POST", "/v1/login", "post", "", "", "", "", "", ""),
    ("OPTIONS", "*", "options", "", "", "", "", "", ""),
    ("PURGE", f"{CORE}/pods", "purge", "", "v1", "pods", "", "", ""),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]} {row[1]}")
def test_verb_and_object_are_those_that_an_api_server_reads(row):
    method, target, *expected = row
    info = parse_request(method, target)
    found = [info.verb, info.api_group, info.api_version, info.resource, info.subresource, info.namespace, info.name]
    assert found == expected


@pytest.mark.parametrize("subresource", ["exec", "attach", "portforward", "proxy"])
def test_a_get_that_switches_protocols_there_is_a_create(subresource):
    target = f"{CORE}/namespaces/a/pods/p/{subresource}"
    assert parse_request("GET", target, upgrade=True).verb == "create"
    assert parse_request("GET", target).verb == "get"
    assert parse_request("GET", f"{CORE}/namespaces/a/pods/p/log", upgrade=True).verb == "get"


@pytest.mark.parametrize(
    ("method", "target", "upgrade", "expected"),
    [
        ("GET", f"{CORE}/pods?watch=true", False, True),
        ("GET", f"{CORE}/pods", False, False),
        ("POST", f"{CORE}/namespaces/a/pods/p/exec", True, True),
        ("GET", f"{CORE}/namespaces/a/pods/p/log?follow=true", False, True),
        ("GET", f"{CORE}/namespaces/a/pods/p/log", False, False),
        ("GET", f"{CORE}/namespaces/a/services/s/proxy/", False, True),
    ],
)
def test_calls_that_may_last_are_known(method, target, upgrade, expected):
    info = parse_request(method, target, upgrade=upgrade)
    assert is_long_running(info, target.partition("?")[2], upgrade=upgrade) is expected


parts = st.sampled_from(
    [
        "",
        "api",
        "apis",
        "v1",
        "apps",
        "namespaces",
        "status",
        "finalize",
        "watch",
        "proxy",
        "pods",
        "p",
        "exec",
        "a%2Fb",
        "watch ",
    ]
)


@settings(deadline=None)
@given(st.lists(parts, max_size=9), st.sampled_from(["GET", "POST", "DELETE"]), st.booleans())
def test_the_usual_form_is_read_as_the_long_way_reads_it(path, method, upgrade):
    target = "/" + "/".join(path)
    found = parse_request(method, target, upgrade=upgrade)
    long_way = pytest.MonkeyPatch()
    long_way.setattr(request, "_USUAL", re.compile("(?!)"))
    try:
        assert parse_request(method, target, upgrade=upgrade) == found
    finally:
        long_way.undo()


SECRET = "aaaabbbbccccdddd"


@pytest.mark.parametrize(
    "target",
    [
        f"/v1/import/hmr_name1_{SECRET}.yaml",
        f"/v1/%69mport/hmr_name1_{SECRET}.yaml",
        f"/v1/import/hmr%5Fname1%5F{SECRET}.yaml",
        f"/v1/import/hm%72_name1_%61{SECRET[1:]}.yaml?x={SECRET}",
        f"/v1/import//hm_name1_{SECRET}",
        f"/apis/x?labelSelector=hm_name1_{SECRET}",
    ],
)
def test_a_token_in_an_address_shows_its_name_alone(target):
    """Registration commands in audit logs are a known leak: CVE-2023-22649."""
    written = mask_uri(target.encode())
    assert SECRET not in written
    assert "name1_***" in written


@pytest.mark.parametrize(
    ("target", "written"),
    [
        ("/k8s/clusters/a/api/v1/namespaces/x%2fy?limit=500", "/k8s/clusters/a/api/v1/namespaces/x%2fy?limit=500"),
        ("/apis/management.herdsman.dev/v1/users/my_name", "/apis/management.herdsman.dev/v1/users/my_name"),
        ("/x?token=abc&watch=true&abc", "/x?token=***&watch=true&***"),
        ("/x?command=mysql&command=-psecret&container=c", "/x?command=mysql&command=***&container=c"),
    ],
)
def test_of_a_query_only_known_parameters_are_shown(target, written):
    assert mask_uri(target.encode()) == written
