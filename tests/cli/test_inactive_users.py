from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from services.cli.commands.inactive_users import find_inactive, last_seen, print_inactive

SINCE = datetime(2026, 3, 1, tzinfo=UTC)


def user(name: str, created: str, condition: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    spec = {key: more.pop(key) for key in ("enabled", "service", "keepWhenInactive") if key in more}
    status = {**more, "conditions": [{"type": "Inactive", **condition}] if condition else []}
    return {"metadata": {"name": name, "creationTimestamp": created}, "spec": spec, "status": status}


USERS = [
    user("new", "2026-03-02T00:00:00Z"),
    user("never", "2026-01-02T00:00:00Z"),
    user("seen", "2026-01-01T00:00:00Z", lastLogin="2026-03-03T00:00:00Z"),
    user("used", "2026-01-01T00:00:00Z", lastLogin="2026-01-03T00:00:00Z", lastActivityTime="2026-03-03T00:00:00Z"),
    user("gone", "2025-01-01T00:00:00Z", lastLogin="2025-02-01T00:00:00Z", service=True, keepWhenInactive=True),
    user("off", "2025-01-01T00:00:00Z", enabled=False),
    user("again", "2025-01-01T00:00:00Z", {"status": "False", "lastTransitionTime": "2026-03-05T00:00:00Z"}),
]


def test_who_was_not_seen_is_found_those_longest_away_first():
    assert [found["metadata"]["name"] for found in find_inactive(USERS, SINCE)] == ["gone", "never"]
    assert last_seen(USERS[1]) == datetime(2026, 1, 2, tzinfo=UTC)


def test_the_table_says_since_when_and_who_is_kept(capsys):
    print_inactive(USERS, SINCE, None)
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "NAME    KIND      LAST ACTIVITY          KEPT",
        "gone    service   2025-02-01T00:00:00Z   keepWhenInactive",
        "never   person    2026-01-02T00:00:00Z   <none>",
    ]
    assert "2 of 7 users" in shown.err
    print_inactive(USERS, SINCE, "name")
    assert capsys.readouterr().out.split() == ["users/gone", "users/never"]
    print_inactive([], SINCE, None)
    assert "nobody was inactive" in capsys.readouterr().err
