from __future__ import annotations

import pytest

from libs.common.access.owed import explain, find_owed
from libs.common.resources.providers import LocalSettings
from tests.access import made

ASKS, ASKS_NOT = LocalSettings(require_one_time_code=True), LocalSettings()


@pytest.mark.parametrize(
    ("must_change", "has_factor", "provider", "purpose", "settings", "owed"),
    [
        (False, False, "local", "login", ASKS_NOT, []),
        (False, False, "local", "login", None, []),
        (True, False, "local", "login", ASKS_NOT, ["password"]),
        (True, False, "local", "api", ASKS_NOT, ["password"]),
        (True, False, "local", "kubeconfig", None, ["password"]),
        (True, False, "corp", "login", ASKS, []),
        (True, False, "", "api", ASKS, []),
        (True, False, "local", "session", ASKS, ["password", "secondFactor"]),
        (False, False, "local", "session", ASKS, ["secondFactor"]),
        (False, False, "local", "login", ASKS, ["secondFactor"]),
        (False, False, "local", "exec", ASKS, ["secondFactor"]),
        (False, False, "local", "api", ASKS, []),
        (False, False, "local", "kubeconfig", ASKS, []),
        (False, True, "local", "login", ASKS, []),
        (True, True, "local", "login", ASKS, ["password"]),
    ],
)
def test_what_is_owed_after_a_sign_in(must_change, has_factor, provider, purpose, settings, owed):
    user = made.user("ada")
    user.status.must_change_password, user.status.second_factor = must_change, has_factor
    assert find_owed(user, provider, purpose, settings) == owed


def test_the_person_is_told_what_to_do():
    assert '"herdsman password"' in explain(["password"])
    assert '"herdsman user second-factor set"' in explain(["secondFactor"])
    assert explain(["password", "secondFactor"]).count("herdsman") == 2
