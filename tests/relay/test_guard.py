"""The agent's own check of who is impersonated."""

from __future__ import annotations

import pytest

from libs.common import errors
from libs.common.relay import guard
from libs.common.relay.head import parse_request

USER = "Impersonate-User: herdsman:ada"
ALLOWED = [
    [USER],
    ["impersonate-user:herdsman:ada"],
    [
        USER,
        "Impersonate-Group: herdsman:cluster:prod:owner",
        "Impersonate-Group: system:authenticated",
        "Impersonate-Uid: 1",
    ],
    [USER, "Impersonate-Extra-Herdsman-Token: t", "Accept: x"],
]
REFUSED = [
    [],
    ["Impersonate-Group: herdsman:x"],
    [USER, USER],
    [USER, "Impersonate-User: herdsman:bob"],
    ["Impersonate-User: admin"],
    ["Impersonate-User: system:admin"],
    ["Impersonate-User: Herdsman:ada"],
    ["Impersonate-User: herdsman:"],
    ["Impersonate-User:"],
    [USER, "Impersonate-Group: system:masters"],
    [USER, "Impersonate-Group: system:nodes"],
    [USER, "Impersonate-Group:"],
    [USER, "Impersonate-Group: herdsman:x", "impersonate-group: system:masters"],
    [USER, "Impersonate-Uid: 1", "Impersonate-Uid: 2"],
    [USER, "Impersonate-Everything: 1"],
    [USER, "Impersonate-Extra-: 1"],
    [USER, "Authorization: Bearer x"],
    [USER, "Cookie: x"],
    [USER, "X-Remote-User: x"],
]


def head(lines):
    return parse_request("\r\n".join(["GET / HTTP/1.1", "Host: a", *lines]).encode() + b"\r\n\r\n")


@pytest.mark.parametrize("lines", ALLOWED)
def test_the_hubs_own_names_pass(lines):
    kept = guard.check(head(lines))
    assert kept == [
        line.replace(":", ": ", 1).replace(":  ", ": ", 1).replace("impersonate-user", "Impersonate-User").encode()
        for line in lines
        if line.lower().startswith("impersonate")
    ]


@pytest.mark.parametrize("lines", REFUSED)
def test_everything_else_is_refused(lines):
    with pytest.raises(errors.Denied):
        guard.check(head(lines))
