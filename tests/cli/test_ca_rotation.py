"""Replacing the hub's certificate authority: what each step leaves in the folder, and when it is refused."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

import pytest

from libs.common import errors
from libs.common.crypto import ca
from libs.common.crypto.bundle import digest_of, is_authority
from services.cli.files import write_private
from services.cli.up import pki, rotation
from services.cli.up.layout import Layout

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def layout(tmp_path):
    made = Layout(tmp_path)
    pki.ensure_certificates(made, "127.0.0.1", NOW)
    return made


def signed_by(layout):
    """Which of the announced authorities, by place, signed the server certificate."""
    certificates = layout.ca_file.read_text().split("-----END CERTIFICATE-----\n")[:-1]
    return [
        not ca.needs_renewal(
            layout.server_certificate.read_bytes(), f"{pem}-----END CERTIFICATE-----\n".encode(), [], NOW
        )
        for pem in certificates
    ]


def test_each_step_announces_before_it_is_needed(layout):
    old = layout.ca_file.read_bytes()
    rotation.start(layout, NOW)
    assert rotation.step_of(layout) == rotation.ANNOUNCED
    assert signed_by(layout) == [True, False]
    announced = digest_of(layout.ca_file.read_bytes())
    assert pki.ensure_certificates(layout, "127.0.0.1", NOW) == ""
    rotation.switch(layout, NOW)
    assert rotation.step_of(layout) == rotation.SWITCHED
    assert signed_by(layout) == [True, False]
    assert digest_of(layout.ca_file.read_bytes()) == announced
    assert pki.ensure_certificates(layout, "127.0.0.1", NOW) == ""
    rotation.finish(layout)
    assert rotation.step_of(layout) == rotation.IDLE
    assert signed_by(layout) == [True]
    assert layout.ca_file.read_bytes() != old
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(layout.server_certificate, layout.server_key)


def test_steps_out_of_order_are_refused(layout, tmp_path):
    with pytest.raises(errors.Conflict):
        rotation.switch(layout, NOW)
    with pytest.raises(errors.Conflict):
        rotation.finish(layout)
    rotation.start(layout, NOW)
    with pytest.raises(errors.Conflict):
        rotation.start(layout, NOW)
    with pytest.raises(errors.NotFound):
        rotation.step_of(Layout(tmp_path / "elsewhere"))


def test_switch_that_was_cut_off_is_healed_by_the_next_start_and_can_be_done_again(layout):
    rotation.start(layout, NOW)
    following = layout.next_ca_file.read_bytes()
    write_private(layout.ca_file, ca.join(following, layout.ca_file.read_bytes()))
    pki.ensure_certificates(layout, "127.0.0.1", NOW)
    assert signed_by(layout) == [True, False]
    rotation.switch(layout, NOW)
    assert rotation.step_of(layout) == rotation.SWITCHED


def cluster(name, trusted, *, registered=True):
    agent = {"publicKey": "U" if registered else "", "trustedCa": trusted}
    return {"metadata": {"name": name}, "status": {"phase": "Active", "agent": agent}}


def test_step_that_would_lose_a_cluster_is_refused_and_names_it():
    known = rotation.judge([cluster("a", "new"), cluster("c", "", registered=False)], "new")
    rotation.check_nobody_is_lost(known, "switch")
    with pytest.raises(errors.Conflict, match=r"lose 1 of the clusters.*: b;"):
        rotation.check_nobody_is_lost(rotation.judge([cluster("a", "new"), cluster("b", "old")], "new"), "switch")


def test_digest_is_that_of_the_set_of_certificates(layout):
    other = ca.generate_ca("other", NOW).certificate
    own = layout.ca_file.read_bytes()
    assert digest_of(ca.join(own, other)) == digest_of(ca.join(other, own, other))
    assert digest_of(own) != digest_of(other)
    with pytest.raises(ValueError):
        digest_of(b"nothing")
    assert is_authority(own + other)
    assert not is_authority(layout.server_certificate.read_bytes())
