"""Wishes to be somebody else: how they are read, which are reserved, what the cluster is asked, what is written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import errors
from libs.common.relay import guard, impersonation
from libs.common.relay.head import parse_request
from libs.common.relay.impersonation import Attribute, Wish
from libs.common.relay.review import render_review
from libs.common.relay.terminal import find_namespace


def head(*lines):
    text = "\r\n".join(["GET / HTTP/1.1", "Host: a", *lines, "", ""])
    return parse_request(text.encode())


def test_all_that_kubectl_can_say_is_read():
    wish = impersonation.parse_wish(
        head(
            "Impersonate-User: jane",
            "Impersonate-Group: dev",
            "impersonate-group: ops",
            "Impersonate-Uid: 17",
            "Impersonate-Extra-Scopes: view",
            "Impersonate-Extra-scopes: edit",
            "Impersonate-Extra-Example.com%2freason: on call",
        )
    )
    assert wish == Wish(
        "jane", ("dev", "ops"), "17", (("scopes", "view"), ("scopes", "edit"), ("example.com/reason", "on call"))
    )


def test_head_without_a_wish_holds_none():
    assert impersonation.parse_wish(head("Accept: x")) is None


@pytest.mark.parametrize(
    "lines",
    [
        ["Impersonate-Group: dev"],
        ["Impersonate-Uid: 1"],
        ["Impersonate-Extra-Scopes: x"],
        ["Impersonate-User:"],
        ["Impersonate-User: ", "Impersonate-Group: dev"],
        ["Impersonate-User: a", "Impersonate-User: b"],
        ["Impersonate-User: a", "impersonate-user: a"],
        ["Impersonate-User: a", "Impersonate-Uid: 1", "Impersonate-Uid: 2"],
        ["Impersonate-User: a", "Impersonate-Group:"],
        ["Impersonate-User: a", "Impersonate-Extra-X:"],
        ["Impersonate-User: a", "Impersonate-Extra-: x"],
        ["Impersonate-User: a", "Impersonate-Extra-%4Bey: x"],
        ["Impersonate-User: a", "Impersonate-Extra-a%zz: x"],
        ["Impersonate-User: a", "Impersonate-Extra-a%252fb: x"],
        ["Impersonate-User: a", "Impersonate-Extra-a%: x"],
        ["Impersonate-User: a", "Impersonate-Extra-%00: x"],
        ["Impersonate-User: a", "Impersonate-Everything: x"],
        ["Impersonate-As-User: a"],
        ["Impersonate-User: a", "Impersonate-As-Group: a"],
        ["Impersonate-User: a", *["Impersonate-Group: g"] * 32],
    ],
)
def test_what_could_be_read_in_two_ways_is_a_bad_request(lines):
    with pytest.raises(errors.BadRequest):
        impersonation.parse_wish(head(*lines))


def test_value_that_is_not_utf_8_is_a_bad_request():
    with pytest.raises(errors.BadRequest):
        impersonation.parse_wish(parse_request(b"GET / HTTP/1.1\r\nHost: a\r\nImpersonate-User: \xff\r\n\r\n"))


RESERVED = [
    Wish("system:admin"),
    Wish("system:node:edge-1"),
    Wish("system:kube-controller-manager"),
    Wish("system:kube-scheduler"),
    Wish("system:anonymous"),
    Wish("system:bootstrap:abcdef"),
    Wish("System:Node:x"),
    Wish("\u017fystem:admin"),
    Wish("system:"),
    Wish("system:serviceaccount:kube-system:generic-garbage-collector"),
    Wish("system:serviceaccount:herdsman-system:herdsman-agent"),
    Wish("system:serviceaccount:own:agent"),
    Wish("system:serviceaccount:Default:x"),
    Wish("system:serviceaccount:default"),
    Wish("system:serviceaccount:default:"),
    Wish("system:serviceaccount:default:x:y"),
    Wish("SYSTEM:serviceaccount:default:x"),
    *(
        Wish("jane", (group,))
        for group in (
            "system:masters", "System:Masters", "\u017fystem:masters", "system:nodes", "system:bootstrappers", "system:bootstrappers:x",
            "system:monitoring", "system:kube-x", "system:serviceaccounts:kube-system", "system:serviceaccounts:herdsman-system",
            "system:serviceaccounts:own", "system:serviceaccounts:", "system:Authenticated",
        )
    ),
    Wish("jane", ("dev", "system:masters")),
    Wish("jane", (), "", (("herdsman-impersonator", "x"),)),
    Wish("jane", (), "", (("herdsman-", "x"),)),
]  # fmt: skip


@pytest.mark.parametrize("wish", RESERVED, ids=str)
def test_reserved_identities_are_denied_before_anybody_is_asked(wish):
    with pytest.raises(errors.Denied):
        impersonation.check_reserved(wish, impersonation.RESERVED_NAMESPACES | {"own"})


@pytest.mark.parametrize(
    "wish",
    [
        Wish("jane"),
        Wish("systems:admin"),
        Wish("herdsman:bob", ("herdsman:cluster:prod:cluster-viewer",)),
        Wish("system:serviceaccount:default:builder"),
        Wish("system:serviceaccount:default:builder", ("system:serviceaccounts", "system:serviceaccounts:default")),
        Wish("jane", ("system:authenticated",)),
        Wish("jane", ("system:unauthenticated",)),
        Wish("jane", (), "1", (("scopes", "system:masters"),)),
    ],
    ids=str,
)
def test_other_names_are_the_clusters_to_judge(wish):
    impersonation.check_reserved(wish)


def test_each_attribute_is_asked_once_as_kube_apiserver_asks():
    wish = Wish("jane", ("dev", "dev"), "17", (("example.com/x", "1"), ("example.com/x", "2")))
    assert impersonation.attributes_of(wish) == [
        Attribute("users", "jane"),
        Attribute("uids", "17", "authentication.k8s.io"),
        Attribute("groups", "dev"),
        Attribute("userextras", "1", "authentication.k8s.io", "example.com/x"),
        Attribute("userextras", "2", "authentication.k8s.io", "example.com/x"),
    ]
    assert impersonation.attributes_of(Wish("system:serviceaccount:ns:robot.x")) == [
        Attribute("serviceaccounts", "robot.x", namespace="ns")
    ]
    asked = json.loads(render_review(Attribute("userextras", "1", "authentication.k8s.io", "scopes")))
    assert asked["spec"]["resourceAttributes"] == {
        "verb": "impersonate", "group": "authentication.k8s.io", "version": "v1", "resource": "userextras",
        "subresource": "scopes", "name": "1",
    }  # fmt: skip


VALUES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
KEYS = st.from_regex(r"[-a-z0-9._/~]{1,20}", fullmatch=True)
WISHES = st.builds(
    Wish, VALUES, st.lists(VALUES, max_size=4).map(tuple), st.one_of(st.just(""), VALUES),
    st.lists(st.tuples(KEYS, VALUES), max_size=4).map(tuple),
)  # fmt: skip


@given(WISHES)
def test_wish_arrives_as_it_was_sent_and_all_of_it_is_asked_and_written(wish):
    lines = impersonation.render(wish, impersonation.FROM_HUB)
    raw = b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", b"Impersonate-User: herdsman:ada", *lines, b"", b""])
    checked = guard.check(parse_request(raw))
    assert checked == [b"Impersonate-User: herdsman:ada", *lines]
    assert impersonation.parse_wish(parse_request(raw), impersonation.FROM_HUB) == wish
    identity = guard.caller_of(checked)
    assert identity == [b"Impersonate-User: herdsman:ada"]
    final = impersonation.render_identity(wish, identity)
    assert final[0] == b"Impersonate-User: " + wish.user.encode()
    raw = b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", *final, b"", b""])
    written = impersonation.parse_wish(parse_request(raw))
    impersonator = ("herdsman-impersonator", "herdsman:ada")
    assert written == Wish(wish.user, wish.groups, wish.uid, (*wish.extras, impersonator))
    assert impersonation.attributes_of(written) == [
        *impersonation.attributes_of(wish),
        Attribute("userextras", "herdsman:ada", "authentication.k8s.io", "herdsman-impersonator"),
    ]


def test_who_really_calls_stays_in_the_extras():
    caller = [
        b"Impersonate-User: herdsman:ada",
        b"Impersonate-Uid: u1",
        b"Impersonate-Group: herdsman:cluster:prod:owner",
        b"Impersonate-Extra-herdsman-principal: local:user:u1",
        b"impersonate-extra-Herdsman-token: t1",
    ]
    assert impersonation.render_identity(Wish("jane"), caller) == [
        b"Impersonate-User: jane",
        b"Impersonate-Extra-herdsman-impersonator: herdsman:ada",
        b"Impersonate-Extra-herdsman-principal: local:user:u1",
        b"impersonate-extra-Herdsman-token: t1",
    ]


def test_namespace_of_the_own_account_is_read_from_its_token():
    import base64

    def token(claims):
        return b"Bearer e30." + base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=") + b".sig"

    assert find_namespace(token({"sub": "system:serviceaccount:own:agent"})) == "own"
    for other in (token({"sub": "x"}), token({"sub": 1}), token([]), b"Bearer a.b.c", b"Bearer x", b"", b"Basic a.b.c"):
        assert find_namespace(other) == ""
