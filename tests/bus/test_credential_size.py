"""A credential travels in one line of the protocol: each service's fits with room to grow."""

from __future__ import annotations

import base64
import json

import pytest

from libs.common.bus.server import MAX_CONTROL_LINE_BYTES
from libs.common.contracts.methods import SERVICES
from libs.common.contracts.permissions import service_permissions

ENVELOPE_BYTES = 1024
"""The rest of the line: names, keys, signatures, options."""


@pytest.mark.parametrize("service", SERVICES)
def test_a_services_credential_is_far_from_the_longest_line(service):
    claims = json.dumps(service_permissions(service)).encode()
    assert len(base64.urlsafe_b64encode(claims)) + ENVELOPE_BYTES < MAX_CONTROL_LINE_BYTES / 2
