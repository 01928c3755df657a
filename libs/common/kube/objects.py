"""What names an object, and when two versions of it mean the same. Pure; used by the client, the agent and the hub's renderer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """One object: `api_version` as in its document; `namespace` is empty for cluster-wide kinds."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @property
    def group(self) -> str:
        """The API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    def __str__(self) -> str:
        where = f' in namespace "{self.namespace}"' if self.namespace else ""
        return f'{self.kind} "{self.name}"{where}'


def ref_of(document: Document) -> Ref:
    """The reference of a document. Raises ValueError when it does not name an object."""
    metadata = document.get("metadata") or {}
    api_version, kind, name = document.get("apiVersion"), document.get("kind"), metadata.get("name")
    if not (isinstance(api_version, str) and isinstance(kind, str) and isinstance(name, str) and name):
        raise ValueError("an object needs apiVersion, kind and metadata.name")
    return Ref(api_version, kind, str(metadata.get("namespace") or ""), name)


def labels_of(document: Document) -> Mapping[str, str]:
    """The labels; an absent map and an empty one are the same."""
    labels: Mapping[str, str] = (document.get("metadata") or {}).get("labels") or {}
    return labels


def is_satisfied(actual: Any, desired: Any) -> bool:
    """Whether everything that `desired` says already stands in `actual`; what only `actual` says does not matter.

    Lists are compared as wholes: a server may add fields to their items (defaults), but neither items nor another order.
    """
    if isinstance(desired, Mapping):
        if not isinstance(actual, Mapping):
            return not desired and actual is None
        return all(is_satisfied(actual.get(key), value) for key, value in desired.items())
    if isinstance(desired, list):
        if not isinstance(actual, list):
            return not desired and actual is None
        return len(actual) == len(desired) and all(map(is_satisfied, actual, desired))
    return bool(actual == desired)


def content_hash(objects: Sequence[Document]) -> str:
    """SHA-256 (hex) of a set of objects: independent of their order and of the order of their keys."""
    digest = hashlib.sha256()
    for text in sorted(json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False) for obj in objects):
        digest.update(text.encode())
        digest.update(b"\n")
    return digest.hexdigest()


def set_hash(parts: Mapping[str, str]) -> str:
    """SHA-256 (hex) of a whole desired set, from the name and content hash of each of its parts."""
    lines = "".join(f"{name} {hash_}\n" for name, hash_ in sorted(parts.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
