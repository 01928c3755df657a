"""What the agent sees of the cluster, as the cluster lists it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from services.agent.apply import Applier
from services.agent.diff import Apply, diff_objects
from services.agent.owned import FIELD_MANAGER, MANAGED_BY, PART, mark

QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "q", "namespace": "web"},
    "spec": {"hard": {"pods": "3"}},
}


class Cluster:
    """Lists what it is given, as an API server does: without apiVersion and kind. It looks at no selector."""

    def __init__(self, *items: dict[str, Any]) -> None:
        self.items = items

    async def resource(self, api_version: str, kind: str) -> Any:
        return SimpleNamespace(collection_path=lambda: "/api/v1/resourcequotas")

    async def pages(self, path: str, **more: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"items": list(self.items)}


def applied(part: str, *managers: str) -> dict[str, Any]:
    """The quota in the cluster, as of this part; the label of its part was set by each of these."""
    marked = mark(QUOTA, part)
    labels = {f"f:{MANAGED_BY}": {}, f"f:{PART}": {}}
    fields = [
        {
            "manager": name,
            "operation": "Apply" if name == FIELD_MANAGER else "Update",
            "fieldsV1": {"f:metadata": {"f:labels": labels}, "f:spec": {}},
        }
        for name in managers
    ]
    return {"metadata": {**marked["metadata"], "uid": "u", "managedFields": fields}, "spec": marked["spec"]}


async def steps(item: dict[str, Any]) -> list[tuple[str, str]]:
    cluster: Any = Cluster(item)
    observed = await Applier(cluster, cluster).observe_owned([("v1", "ResourceQuota")])
    assert all("f:spec" not in str(o) for o in observed.objects.values())
    takes, gives = diff_objects({"projects/shop": [QUOTA]}, observed.objects)
    assert takes == []
    return [(step.part, step.moved_from) for step in gives if isinstance(step, Apply)]


async def test_an_object_that_we_put_into_another_part_is_seen_as_moved_and_what_others_mark_is_not() -> None:
    assert await steps(applied("projects/shop", FIELD_MANAGER)) == []
    assert await steps(applied("projects/shop/1", FIELD_MANAGER)) == [("projects.shop", "projects.shop.1")]
    assert await steps(applied("projects/shop/1", "kubectl")) == [("projects.shop", "")]
