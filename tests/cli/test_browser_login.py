"""`herdsman login` by browser, on real sockets: a hub over TLS that answers as planned, and a browser that is a function."""

from __future__ import annotations

import sys
import threading
import urllib.request
from dataclasses import replace

import pytest

from libs.common import errors
from services.cli import browser_login, device_login
from services.cli.browser_login import has_browser, make_challenge
from services.cli.hub import Hub
from services.cli.main import run

DEVICES, FETCH = ("POST", "/v1/devices"), ("POST", "/v1/devices/fetch")
BEGUN = {"device_code": "d", "user_code": "BCDF-GHJK", "interval_s": 5, "verification_uri": "https://hub.example/ui/#login=BCDF-GHJK"}  # fmt: skip
TOKEN = {"token": "hm_a_b", "user": "ada", "expires_at": "2027-01-01T00:00:00Z"}


class Site:
    """What was told, and a browser in which the person does `result`."""

    def __init__(self, server, answers, result: str) -> None:
        self.answers, self.result, self.told, self.opened = answers, result, [], []
        self.hub = Hub(replace(server, token=""))

    def browse(self, page: str) -> bool:
        self.opened.append(page)
        asked = self.asked("/v1/devices")["browser"]
        address = f"http://127.0.0.1:{asked['port']}/callback?{self.result}&state={asked['state']}"
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200

    def asked(self, path: str):
        return next(body for _, seen, _, body in reversed(self.answers.seen) if seen == path)

    def sign_in(self, **more):
        with self.hub:
            return browser_login.sign_in(
                self.hub, self.told.append, **{"open_page": self.browse, "timeout_s": 5, **more}
            )


@pytest.fixture
def site(server, answers):
    answers.plan(*DEVICES, 200, BEGUN)
    return Site(server, answers, "code=c0de")


def test_the_code_that_the_browser_brings_is_exchanged_with_the_verifier(site, answers):
    answers.plan(*FETCH, 200, TOKEN)
    assert site.sign_in() == TOKEN
    assert site.opened == [BEGUN["verification_uri"]]
    told = "\n".join(site.told)
    assert BEGUN["verification_uri"] in told
    assert BEGUN["user_code"] in told
    fetched, begun = site.asked("/v1/devices/fetch"), site.asked("/v1/devices")["browser"]
    assert (fetched["device_code"], fetched["code"]) == ("d", "c0de")
    assert make_challenge(fetched["code_verifier"]) == begun["code_challenge"]
    assert begun.keys() == {"port", "state", "code_challenge"}
    assert "c0de" not in told
    assert fetched["code_verifier"] not in told


def test_a_replica_that_has_not_heard_yet_is_asked_again(site, answers):
    answers.plan(*FETCH, 202, {})
    answers.plan(*FETCH, 200, TOKEN)
    assert site.sign_in() == TOKEN


def test_a_refusal_in_the_browser_asks_the_hub_for_nothing(site, answers):
    site.result = "error=access_denied"
    with pytest.raises(errors.Denied, match="refused in the browser"):
        site.sign_in()
    assert [path for _, path, _, _ in answers.seen] == ["/v1/devices"]


def test_what_the_hub_says_of_a_wrong_code_is_what_the_person_reads(site, answers):
    answers.status(*FETCH, errors.Denied("this sign-in took too long: begin again"))
    with pytest.raises(errors.Denied, match="begin again"):
        site.sign_in()


def test_a_browser_that_does_not_open_is_told_and_waited_for(site, answers):
    answers.plan(*FETCH, 200, TOKEN)
    told = threading.Event()

    def tell(text: str) -> None:
        site.told.append(text)
        if text.startswith("no browser"):
            told.set()

    def by_hand() -> None:
        assert told.wait(5)
        site.browse(BEGUN["verification_uri"])

    person = threading.Thread(target=by_hand)
    person.start()
    with site.hub:
        assert browser_login.sign_in(site.hub, tell, open_page=lambda _page: False, timeout_s=10) == TOKEN
    person.join()


def test_nobody_at_the_browser_is_a_time_out(site):
    with pytest.raises(errors.Timeout, match="--device"):
        site.sign_in(open_page=lambda _page: True, timeout_s=0.05)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("http://hub.example/ui/#login=BCDF-GHJK", "no address"), ("file:///etc/passwd#login=x", "no address"), ("--new-window#login=x", "no address"),
        ("https://hub.example/ui/ --x#login=x", "no address"), ("https://hub.example/\n#login=x", "no address"), ("", "no address"),
        ("https://hub.example/ui/#device", "older"),
    ],
)  # fmt: skip
def test_no_browser_is_given_anything_but_the_hubs_page(server, answers, page, said):
    answers.plan(*DEVICES, 200, {**BEGUN, "verification_uri": page})
    site = Site(server, answers, "code=c")
    with pytest.raises(errors.Unavailable, match=said):
        site.sign_in()
    assert site.opened == []


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        ({}, "linux", False), ({"DISPLAY": ":0"}, "linux", True), ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True), ({"DISPLAY": ""}, "linux", False),
        ({"DISPLAY": ":10", "SSH_CONNECTION": "a 1 b 2"}, "linux", False), ({"DISPLAY": ":10", "SSH_TTY": "/dev/pts/1"}, "linux", False),
        ({}, "darwin", True), ({"SSH_CONNECTION": "a 1 b 2"}, "darwin", False), ({}, "win32", True),
    ],
)  # fmt: skip
def test_a_browser_is_expected_where_the_person_sits(environ, platform, expected):
    assert has_browser(environ, platform) is expected


CHOICES = [
    ([], True, True, "browser"), ([], True, False, "device"), ([], False, True, "usage"), (["--browser"], False, False, "browser"),
    (["--device"], True, True, "device"), (["--user", "ada"], True, True, "password"), (["--provider", "corp"], True, True, "password"),
    (["--browser", "--device"], True, True, "usage"), (["--browser", "--user", "ada"], True, True, "usage"), (["--device", "--provider", "corp"], True, True, "usage"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "terminal", "browser", "expected"), CHOICES)
def test_the_way_in_is_the_one_that_was_asked_for_or_that_fits(
    options, terminal, browser, expected, monkeypatch, capsys, tmp_path
):
    """Which way is taken, not what it does: each says its name and stops."""
    taken = []

    def way(name):
        def stop(*_args, **_more):
            taken.append(name)
            raise errors.Denied(name)

        return stop

    monkeypatch.setenv("HERDSMAN_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr(browser_login, "sign_in", way("browser"))
    monkeypatch.setattr(device_login, "sign_in", way("device"))
    monkeypatch.setattr(browser_login, "has_browser", lambda: browser)
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("click.prompt", way("password"))
    code = run(["login", "https://127.0.0.1:1", *options])
    capsys.readouterr()
    assert (code, taken) == ((2, []) if expected == "usage" else (4, [expected]))
