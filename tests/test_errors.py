"""Errors: one translation for the wire and for Kubernetes clients."""

from __future__ import annotations

import pytest

from libs.common import errors


@pytest.mark.parametrize("family", errors.FAMILIES.values())
def test_every_family_survives_the_wire(family):
    made = family("text", kind="Cluster", name="a", causes=[errors.Cause("spec.x", "bad")], retry_after_s=3)
    back = errors.from_wire(made.to_wire())
    assert type(back) is family
    assert back.to_status() == made.to_status()


def test_an_unknown_family_becomes_internal():
    assert isinstance(errors.from_wire({"family": "Newer", "message": "m"}), errors.Internal)


def test_status_has_the_form_that_kubectl_prints():
    status = errors.not_found("Cluster", "prod").to_status("management.herdsman.dev")
    assert status["code"] == 404
    assert status["reason"] == "NotFound"
    assert status["message"] == 'Cluster "prod" not found'
    assert status["details"] == {"name": "prod", "group": "management.herdsman.dev", "kind": "Cluster"}


def test_a_subclass_crosses_the_wire_as_its_family():
    class DiskFull(errors.Unavailable):
        pass

    back = errors.from_wire(DiskFull("no room", retry_after_s=2).to_wire())
    assert type(back) is errors.Unavailable
    assert back.retry_after_s == 2


def test_being_asked_for_a_one_time_code_crosses_the_bus_as_itself():
    assert type(errors.from_wire(errors.SecondFactorNeeded("give one").to_wire())) is errors.SecondFactorNeeded
