from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from libs.common.audit.stated import StatedEvent
from libs.common.contracts.messages import IdentityEvent
from libs.common.observe import client
from services.gateway.audit_log import Query

ID = "0d6e0c5e-6e0b-4a5c-9d9c-0a6b7d3f1c11"
AT = datetime(2026, 1, 2, 3, 4, 5, 500_000, tzinfo=UTC)


def shown(**more) -> dict:
    facts = {"action": "sign-in", "outcome": "success", "by": "person", "actor": "ada", "account": "ada", **more}
    return json.loads(StatedEvent("identity", IdentityEvent(id=ID, at=AT, **facts)).render("chain"))


def test_an_event_has_the_shape_of_those_of_calls():
    event = shown(
        actor_uid="u1", provider="corp", token="t1", resource="users", name="ada", address="192.0.2.7", agent="herdsman/1", reason="x"
    )  # fmt: skip
    assert event == {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": ID, "stage": "ResponseComplete",
        "requestURI": "identity:sign-in", "verb": "sign-in", "user": {"username": "ada", "uid": "u1"}, "sourceIPs": ["192.0.2.7"],
        "userAgent": "herdsman/1",
        "objectRef": {"resource": "users", "name": "ada", "apiGroup": "management.herdsman.dev", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 200},
        "requestReceivedTimestamp": "2026-01-02T03:04:05.500000Z", "stageTimestamp": "2026-01-02T03:04:05.500000Z",
        "annotations": {
            "audit.herdsman.dev/source": "identity", "audit.herdsman.dev/outcome": "success", "audit.herdsman.dev/decision": "allow",
            "audit.herdsman.dev/reason": "x", "audit.herdsman.dev/account": "ada", "audit.herdsman.dev/provider": "corp",
            "audit.herdsman.dev/token": "t1",
        },
    }  # fmt: skip


def test_a_failure_names_the_account_and_nobody_as_its_author():
    event = shown(outcome="failure", by="nobody", actor="", code=401, reason="wrong_password", count=7, since=AT)
    assert event["user"] == {"username": "system:anonymous", "groups": ["system:unauthenticated"]}
    assert event["responseStatus"] == {"metadata": {}, "status": "Failure", "code": 401, "reason": "Unauthorized"}
    notes = {name.rpartition("/")[2]: value for name, value in event["annotations"].items()}
    assert (notes["decision"], notes["count"], notes["account"]) == ("forbid", "7", "ada")


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        (Query(account="ada"), True),
        (Query(account="bob"), False),
        (Query(user="ada"), False),
        (Query(denied=True, account="ada"), True),
        (Query(verb="sign-in"), True),
        (Query(resource="users.management.herdsman.dev"), True),
        (Query(cluster="prod"), False),
        (Query(since=AT, until=AT), True),
    ],
)
def test_the_search_for_calls_finds_it(query, fits):
    assert query.fits(shown(outcome="failure", by="nobody", actor="", code=401, resource="users", name="ada")) is fits


def test_what_the_hub_does_by_itself_is_no_persons():
    assert shown(by="hub", actor="")["user"] == {"username": "system:herdsman:identity"}


def test_credentials_are_masked_wherever_they_stand():
    text = "hm_abcdefghij_" + "s" * 40
    assert "ssss" not in json.dumps(shown(agent=text, note=text, resource="users", name=text))


def test_a_client_is_bounded_text_and_survives_the_headers():
    made = client.make("192.0.2.1", "curl\r\nX: y " + "ü" * 400)
    assert len(made.agent) <= client.MAX_AGENT
    assert made.agent.isascii()
    assert made.agent.isprintable()
    assert client.parse(made.headers()) == made
    assert client.parse({}) is client.NOBODY
    with client.entered(made):
        assert client.current() == made
    assert client.current() is client.NOBODY
