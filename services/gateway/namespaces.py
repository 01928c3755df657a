"""Namespaces as plain kubectl makes them, handed over by the front door: a Namespace of Kubernetes in, the project service decides.

What a project does not keep on its namespaces is refused, not dropped. What made it is answered by the cluster: the front door reads the namespace
there as soon as this says that it is made (`MADE`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from libs.common import errors
from libs.common.contracts.messages import NamespaceCreate, NamespaceCreated
from libs.common.contracts.methods import CREATE_NAMESPACE
from services.gateway.answers import answer
from services.gateway.bodies import check_object, read_body
from services.gateway.call import Call
from services.gateway.projects import ANSWER_S
from services.gateway.state import State

MADE = "Herdsman-Namespace"
NAME_LABEL = "kubernetes.io/metadata.name"
PROJECT_LABEL = "management.herdsman.dev/project"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_IGNORED = ("creationTimestamp", "managedFields")
"""Of the metadata; what clients send without meaning anything by it."""


class Namespaces:
    def __init__(self, state: State) -> None:
        self._state = state

    async def create(self, call: Call) -> web.StreamResponse:
        """201 and the header `Herdsman-Namespace` when it is in the cluster with all that belongs to it. Raises Timeout while it is not."""
        body = await read_body(call.request)
        if body.duplicates:
            raise errors.BadRequest(f"keys stand twice in the body: {', '.join(body.duplicates[:5])}")
        wanted = parse_namespace(check_object(body))
        dry_run = parse_dry_run(call.request.query.getall("dryRun", []))
        request = NamespaceCreate(
            identity=call.envelope, request_id=call.request_id, cluster=call.path("name")[:63], dry_run=dry_run, **wanted
        )  # fmt: skip
        made = await self._state.bus.request(
            CREATE_NAMESPACE.subject, request, CREATE_NAMESPACE.reply, timeout_s=ANSWER_S
        )
        if dry_run:
            return answer(render_wanted(made, request.labels, request.annotations), 201)
        if not made.uid:
            raise errors.Timeout(
                f'namespace "{made.namespace}" is in project "{made.project}" and will be made, but is not ready yet: {made.pending}'
            )
        done = answer(made.model_dump(mode="json"), 201)
        done.headers[MADE] = made.namespace
        return done


def parse_namespace(document: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for by a Namespace: `namespace`, `project`, `labels`, `annotations`. Raises Invalid for what can't be kept."""
    if document.get("apiVersion", "v1") != "v1" or document.get("kind", "Namespace") != "Namespace":
        raise errors.BadRequest("the body must be a Namespace of apiVersion v1")
    metadata = document.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise errors.BadRequest("metadata must be an object")
    name = metadata.get("name")
    if not isinstance(name, str) or not name or len(name) > 63:
        why = "Required value: the namespace's name; generateName is not for namespaces of projects"
        raise _invalid("", [errors.Cause("metadata.name", why, "FieldValueRequired")])
    labels, annotations = _strings(metadata, "labels"), _strings(metadata, "annotations")
    project = labels.pop(PROJECT_LABEL, "")
    labels.pop(NAME_LABEL, None)  # an API server writes it itself, from the name
    if labels.get("name") == name:
        del labels["name"]  # Helm's; it says nothing that the name does not
    annotations.pop(LAST_APPLIED, None)  # kubectl's note to itself about this very body
    causes = [
        errors.Cause(
            f"metadata.{key}", "Forbidden: a namespace of a project can't be made with it", "FieldValueForbidden"
        )
        for key in sorted(metadata.keys() - {"name", "labels", "annotations", *_IGNORED})
        if metadata[key]
    ]
    if (document.get("spec") or {}) not in ({}, {"finalizers": ["kubernetes"]}):
        causes.append(errors.Cause("spec", "Forbidden: a namespace of a project has none", "FieldValueForbidden"))
    causes += [
        errors.Cause(key, "Forbidden: no field of a Namespace", "FieldValueForbidden")
        for key in sorted(document.keys() - {"apiVersion", "kind", "metadata", "spec", "status"})
    ]
    if causes:
        raise _invalid(name, causes)
    return {"namespace": name, "project": str(project)[:63], "labels": labels, "annotations": annotations}


def parse_dry_run(values: list[str]) -> bool:
    if any(value != "All" for value in values):
        raise errors.BadRequest("the parameter dryRun may only be All")
    return bool(values)


def render_wanted(made: NamespaceCreated, labels: Mapping[str, str], annotations: Mapping[str, str]) -> dict[str, Any]:
    """What would be made, for a dry run: nothing was, so the cluster has nothing to show."""
    metadata: dict[str, Any] = {
        "name": made.namespace,
        "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "labels": {**labels, NAME_LABEL: made.namespace, PROJECT_LABEL: made.project},
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {
        "apiVersion": "v1", "kind": "Namespace", "metadata": metadata, "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }  # fmt: skip


def _strings(metadata: Mapping[str, Any], field: str) -> dict[str, str]:
    found = metadata.get(field) or {}
    if not isinstance(found, dict) or len(found) > 64 or not all(isinstance(v, str) for v in found.values()):
        raise errors.BadRequest(f"metadata.{field} must be at most 64 texts by name")
    return dict(found)


def _invalid(name: str, causes: list[errors.Cause]) -> errors.Invalid:
    told = "; ".join(f"{c.field}: {c.message}" for c in causes[:5])
    return errors.Invalid(f'Namespace "{name}" is invalid: {told}', kind="Namespace", name=name, causes=causes)
