"""The listener on loopback, spoken to as browsers, other pages and other programs do."""

from __future__ import annotations

import http.client
import socket

import pytest

from libs.common import errors
from services.cli.callback import Callback, listening


def get(callback: Callback, target: str, *, method: str = "GET", host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", callback.port, timeout=10)
    try:
        connection.request(method, target, headers={} if host is None else {"Host": host})
        answer = connection.getresponse()
        assert answer.getheader("Content-Type", "").startswith("text/html")
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_the_right_answer_shows_a_page_that_may_be_closed_and_counts_once():
    with listening() as callback:
        status, text = get(callback, f"/callback?code=c0de&state={callback.state}")
        assert status == 200
        assert "You can close this window." in text
        assert "c0de" not in text
        assert get(callback, f"/callback?code=other&state={callback.state}")[0] == 410
        assert callback.wait(5) == "c0de"
    with pytest.raises(OSError, match="refused"):
        get(callback, "/callback")


def test_nothing_but_the_page_itself_is_allowed_by_the_page_and_nothing_is_kept_of_it():
    with listening() as callback:
        connection = http.client.HTTPConnection("127.0.0.1", callback.port, timeout=10)
        connection.request("GET", f"/callback?code=c&state={callback.state}")
        headers = connection.getresponse().headers
        connection.close()
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert (headers["Referrer-Policy"], headers["Cache-Control"]) == ("no-referrer", "no-store")


STRAY = [
    "/favicon.ico", "/", "/callback/", "/callback/x", "/callbackx?code=c&state={state}", "/callback", "/callback?code=c", "/callback?state={state}",
    "/callback?code=&state={state}", "/callback?code=c&state=", "/callback?code=c&state={state}x", "/callback?code=c&state=%ff", "/callback?code=c&state={state}&state={state}",
    "/callback?code=c&code=d&state={state}", "/callback?code=c&state={state}&error=access_denied", "/callback?error=access_denied&state=guess",
    "/callback?error=access_denied", "/callback?error=odd&state={state}", "/callback?%&state={state}", "/callback?code=c&state={state}&a=&b=&c=&d=&e=&f=&g=",
    "/callback?code=" + "c" * 513 + "&state={state}",
]  # fmt: skip


def test_whatever_else_comes_is_turned_away_and_the_answer_still_waited_for():
    with listening() as callback:
        for target in STRAY:
            status, _ = get(callback, target.format(state=callback.state))
            assert status in (400, 404), target
        for method in ("POST", "PUT", "OPTIONS", "HEAD"):
            assert get(callback, f"/callback?code=c&state={callback.state}", method=method)[0] == 501
        with pytest.raises(errors.Timeout):
            callback.wait(0)
        assert get(callback, f"/callback?code=right&state={callback.state}")[0] == 200
        assert callback.wait(5) == "right"


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost:{port}", "127.0.0.1", "127.0.0.1:1", "", "127.0.0.1:{port}.evil.example"]
)
def test_another_host_is_not_answered_though_the_state_is_right(host):
    with listening() as callback:
        given = host.format(port=callback.port)
        assert get(callback, f"/callback?code=c&state={callback.state}", host=given)[0] == 421
        with pytest.raises(errors.Timeout):
            callback.wait(0)


def test_a_refusal_is_told_at_once_and_needs_the_state_too():
    with listening() as callback:
        status, text = get(callback, f"/callback?error=access_denied&state={callback.state}")
        assert (status, "Refused" in text) == (200, True)
        with pytest.raises(errors.Denied, match="refused in the browser"):
            callback.wait(5)


def test_who_waits_too_long_is_told_what_else_there_is():
    with listening() as callback, pytest.raises(errors.Timeout, match="--device"):
        callback.wait(0)


def test_connections_that_say_nothing_hold_up_neither_the_answer_nor_the_end():
    """As browsers open them in advance; more of them than are served at a time are cut."""
    with listening() as callback:
        idle = [socket.create_connection(("127.0.0.1", callback.port), 5) for _ in range(8)]
        assert get(callback, f"/callback?code=c&state={callback.state}")[0] == 200
        assert callback.wait(5) == "c"
        idle += [socket.create_connection(("127.0.0.1", callback.port), 5) for _ in range(40)]
        idle[-1].settimeout(5)
        assert idle[-1].recv(1) == b""
    for connection in idle:
        connection.close()


def test_a_request_without_an_end_and_one_that_is_no_request_disturb_nobody(capfd):
    with listening() as callback:
        for data in (
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"GET /callback?code=c",
            b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", callback.port), 5) as connection:
                connection.sendall(data)
        assert get(callback, f"/callback?code=c&state={callback.state}")[0] == 200
        assert callback.wait(5) == "c"
    assert capfd.readouterr().err == ""


def test_two_at_a_time_have_ports_and_states_of_their_own():
    with listening() as one, listening() as two:
        assert one.port != two.port
        assert get(two, f"/callback?code=c&state={one.state}")[0] == 400
