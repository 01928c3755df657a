"""Advisories about who calls: whatever a client writes, the cluster sees exactly the identity that the hub computed, or nothing.

Each attack is made as a plain request, as a WebSocket and as a SPDY upgrade, through the whole front door and an agent.
"""

from __future__ import annotations

import itertools

import pytest

from libs.common import errors
from libs.common.relay import rebuild
from libs.common.relay.names import KUBERNETES_REQUEST
from tests.auth_proxy.recorder import FORMS, identity_lines

NAMES = [
    "Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-Herdsman-Principal",
    "Impersonate-Extra-herdsman-token", "Authorization", "X-Remote-User", "Host", "Content-Length",
]  # fmt: skip
SPELLINGS = [str, str.lower, str.upper, str.swapcase]
LISTS = [
    ["Connection: {0}"], ["connection: {0}"], ["CONNECTION:{0}"], ["Connection: close, {0}"], ["Connection: {0},close"],
    ["Connection: close ,\t{0} ,"], ["Connection: close", "Connection: {0}"], ["Connection: {0}", "connection: keep-alive"],
    ["Connection: keep-alive", "Connection: ,, {0}"], ["Proxy-Connection: keep-alive", "Connection: {0}, {0}"],
]  # fmt: skip


async def test_cve_2021_31999_connection_header_cannot_strip_the_identity(scene):
    """Also CVE-2022-23652 (capsule-proxy) and GHSA-2vjp-5q24-hqjv (Kyma): every name, any case, several lines, lists, odd blanks."""
    faults = []
    for name, spelling, shape in itertools.product(NAMES, SPELLINGS, LISTS):
        if name != "Impersonate-User" and (spelling is not str and shape is not LISTS[0]):
            continue
        lines = [line.format(spelling(name)) for line in shape]
        faults += await scene.refuses(" | ".join(lines), lines)
    assert not faults


async def test_cve_2022_23652_connection_header_beside_an_upgrade_cannot_strip_the_identity(scene):
    for protocol, connection in itertools.product(
        ["websocket", "SPDY/3.1", "WebSocket"],
        ["Upgrade, Impersonate-User", "impersonate-user,upgrade", "UPGRADE ,\tIMPERSONATE-GROUP"],
    ):
        reply = await scene.say([f"Connection: {connection}", f"Upgrade: {protocol}"])
        assert reply.status == 400
    assert not scene.upstream.heads


@pytest.mark.parametrize("take_away", ["Impersonate-User", "the whole identity"])
def test_cve_2021_31999_a_request_without_identity_never_leaves(take_away):
    """Fail closed: what is checked is the bytes that are about to be written, not a flag."""
    identity = b"Impersonate-User: herdsman:ada\r\nImpersonate-Group: herdsman:x\r\n"
    from libs.common.relay.head import parse_request

    head = parse_request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    left = b"Impersonate-Group: herdsman:x\r\n" if take_away == "Impersonate-User" else b""
    built = rebuild.request_head(head, b"/", allowed=KUBERNETES_REQUEST, host=b"up", identity=left)
    for claimed in (identity, left):
        with pytest.raises(errors.Internal):
            rebuild.check_identity(built, claimed)


async def test_cve_2021_36776_no_inbound_impersonate_header_passes_as_it_came(scene):
    """Also GHSA-r5c2-7hp9-v678 (bored-agent)."""
    faults = []
    for line in [
        "Impersonate-User: system:admin", "impersonate-user: system:masters", "IMPERSONATE-USER:System:Admin",
        "iMpErSoNaTe-uSeR:\tsystem:node:a", "Impersonate-User:", "Impersonate-Uid: 1", "Impersonate-Group: system:authenticated",
        "Impersonate-Extra-Scopes: all", "Impersonate-Extra-: x", "Impersonate-Anything: x", "Impersonate-As-User: admin",
    ]:  # fmt: skip
        faults += await scene.refuses(line, [line])
        faults += await scene.refuses(f"{line}, twice", [line, line])
    assert not faults


@pytest.mark.parametrize("user", ["admin", "herdsman:ada", "kubernetes-admin"])
async def test_cve_2021_36776_a_wish_reaches_the_cluster_only_as_the_callers_own_review(scene, user):
    """The cluster says nothing that would allow it, so nothing but the question may have come."""
    for spelling in ("Impersonate-User", "iMpErSoNaTe-uSeR"):
        scene.upstream.clear()
        reply = await scene.say([f"{spelling}: {user}"])
        assert reply.status in (403, 502)
        assert scene.upstream.heads
        for head in scene.upstream.heads:
            assert head.startswith(b"POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews HTTP/1.1\r\n")
            assert identity_lines(head) == scene.identity


async def test_cve_2026_17107_groups_of_the_client_are_never_joined_to_the_computed_ones(scene):
    """Also GHSA-c7xh-gjv4-4jgv (kcp): reserved groups are refused whoever asks; here an owner of the cluster does."""
    faults = []
    for group in [
        "system:masters",
        "system:nodes",
        "system:kube-controller-manager",
        "herdsman:cluster:prod:cluster-owner",
    ]:
        faults += await scene.refuses(group, [f"Impersonate-Group: {group}"])
        faults += await scene.refuses(f"{group} in two", ["Impersonate-Group: a", f"impersonate-group: {group}"])
    assert not faults


async def test_cve_2026_61682_x_remote_headers_are_refused(scene):
    faults = []
    for name, value in itertools.product(
        ["X-Remote-User", "x-remote-group", "X-REMOTE-EXTRA-Scopes", "X-Remote-Uid"], ["admin", "system:masters", ""]
    ):
        faults += await scene.refuses(name, [f"{name}: {value}"])
    assert not faults


async def test_cve_2026_61682_forwarding_and_proxy_headers_never_arrive(scene):
    lines = [
        "X-Forwarded-User: admin", "X-Forwarded-Group: system:masters", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Uri: /healthz",
        "X-Forwarded-Host: evil", "Forwarded: for=127.0.0.1", "X-Original-URL: /api", "X-Rewrite-URL: /api", "X-Real-IP: 127.0.0.1",
        "Proxy-Authorization: Bearer x", "Proxy-Connection: keep-alive", "Cookie: session=x", "X-Auth-Request-User: admin",
        "X-Webauth-User: admin", "Front-Proxy-User: a", "TE: trailers", "Trailer: Impersonate-User", "Via: 1.1 x", "Origin: https://evil",
        "X-Http-Method-Override: DELETE", "Keep-Alive: timeout=5",
    ]  # fmt: skip
    assert not await scene.passes_clean("forwarding headers", lines)
    for head in scene.upstream.heads:
        for line in lines:
            assert line.partition(":")[0].lower().encode() + b":" not in head.lower()


async def test_cve_2025_64484_underscores_are_not_dashes(scene):
    faults = []
    for line in [
        "Impersonate_User: admin", "impersonate_group: system:masters", "Impersonate-Extra_x: a", "IMPERSONATE_UID: 1", "X_Remote_User: a",
        "X_Forwarded_User: a", "X-Forwarded_User: a", "Herdsman_Identity: a.b", "Content_Length: 5", "Transfer_Encoding: chunked",
    ]:  # fmt: skip
        faults += await scene.refuses(line, [line])
    for line in ["Authorization_: x", "_Authorization: x", "Impersonate.User: x"]:
        faults += await scene.passes_clean(line, [line])
    assert not faults


async def test_cve_2025_64484_names_that_are_no_names_are_refused(scene):
    faults = []
    for line in [
        "Impersonate\u00e9-User: admin", "Impersonate-User : admin", " Impersonate-User: admin", "\tImpersonate-User: admin",
        ": Impersonate-User", "Impersonate-User", "Imperson\x00ate-User: a", "Impersonate-User\x0b: a", "Impersonate-User\x7f: a",
        "(Impersonate-User): a", '"Impersonate-User": a', "Impersonate User: a", "\u00ef\u00bb\u00bfImpersonate-User: a", "Impersonate-User;: a",
    ]:  # fmt: skip
        faults += await scene.refuses(repr(line), [line])
    assert not faults


async def test_cve_2025_54468_what_goes_on_holds_the_callers_identity_once_and_none_of_its_credentials(scene):
    for form, extra in FORMS.items():
        scene.upstream.clear()
        assert (await scene.say(["Cookie: a=b", "X-Api-Key: x", *extra])).status == 200, form
        (head,) = scene.upstream.heads
        assert identity_lines(head) == scene.identity
        assert scene.token.encode() not in head
        assert scene.token.split("_")[2].encode() not in b"".join(scene.upstream.connections)


async def test_cve_2026_88811_token_in_a_subprotocol_never_goes_on(scene):
    """A browser's way to send a token; it is read for WebSockets, and must not reach a cluster in any other request either."""
    import base64

    coded = base64.urlsafe_b64encode(scene.token.encode()).decode().rstrip("=")
    line = f"Sec-WebSocket-Protocol: v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.{coded}"
    for form in ("plain", "spdy"):
        scene.upstream.clear()
        await scene.say([line, *FORMS[form]])
        for head in scene.upstream.heads:
            assert coded.encode() not in head, form
    websocket = [text for text in FORMS["websocket"] if not text.startswith("Sec-WebSocket-Protocol")]
    assert (await scene.say([line, *websocket])).status == 401, "two credentials"
    scene.upstream.clear()
    assert (await scene.say([line, *websocket], token="")).status == 200
    (head,) = scene.upstream.heads
    assert b"Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n" in head
    assert coded.encode() not in head
    assert identity_lines(head) == scene.identity
