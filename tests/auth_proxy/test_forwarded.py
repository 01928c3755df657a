"""Who called, when a balancer stands in front: its word counts, nobody else's does."""

from __future__ import annotations

import pytest

from libs.common.relay.head import parse_request
from services.auth_proxy.forwarded import TrustedProxies
from tests.auth_proxy.door import open_door

PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8::/32", "127.0.0.1"])


def head(*values):
    lines = "".join(f"X-Forwarded-For: {value}\r\n" for value in values)
    return parse_request(f"GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n".encode())


@pytest.mark.parametrize(
    ("peer", "values", "client"),
    [
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),  # a stranger's word
        ("10.1.1.1", [], "10.1.1.1"),
        ("10.1.1.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.1.1.1", ["1.2.3.4, 198.51.100.7"], "198.51.100.7"),  # the first was said by the client itself
        ("10.1.1.1", ["1.2.3.4", "198.51.100.7, 10.2.2.2"], "198.51.100.7"),
        ("10.1.1.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("::ffff:10.1.1.1", ["[2001:DB9::7]:4711"], "2001:db9::7"),
        ("2001:db8::1", ["unknown"], "2001:db8::1"),
        ("10.1.1.1", ["198.51.100.7, unknown, 10.2.2.2"], "10.2.2.2"),
        ("10.1.1.1", ["10.3.3.3"], "10.3.3.3"),
        ("10.1.1.1", [""], "10.1.1.1"),
        ("local", ["198.51.100.7"], "local"),
    ],
)
def test_the_client_is_the_last_address_that_no_trusted_proxy_has(peer, values, client):
    assert PROXIES.find_client(peer, head(*values)) == client


def test_nonsense_is_no_network():
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
        TrustedProxies(["10.0.0.1/8"])


@pytest.mark.parametrize(("trusted", "client"), [(["127.0.0.1/32"], "198.51.100.7"), ([], "127.0.0.1")])
async def test_the_record_of_a_call_names_the_client_and_the_next_call_of_the_connection_another(
    tmp_path, trusted, client
):
    async with open_door(tmp_path, trusted_proxies=trusted) as door:
        token = await door.member()
        for address in ("198.51.100.7", ""):
            reply = await door.get(
                "/k8s/clusters/nope/version", token, *[f"X-Forwarded-For: {address}"] * bool(address)
            )
            assert reply.status == 403
        assert [event["sourceIPs"] for event in await door.events(2)] == [[client], ["127.0.0.1"]]


async def test_one_connection_of_a_balancer_carries_calls_of_many_clients(tmp_path):
    async with open_door(tmp_path, trusted_proxies=["127.0.0.1"]) as door:
        await door.member()
        request = "GET /k8s/clusters/nope/version HTTP/1.1\r\nHost: h\r\n{}\r\n"
        lines = ["X-Forwarded-For: 198.51.100.7\r\n", "X-Forwarded-For: 198.51.100.8\r\n", "Connection: close\r\n"]
        await door.talk("".join(request.format(line) for line in lines).encode())
        sources = [event["sourceIPs"] for event in await door.events(3)]
    assert sources == [["198.51.100.7"], ["198.51.100.8"], ["127.0.0.1"]]
