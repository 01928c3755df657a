"""Which form of an answer the client wants: the object, a Table, or metadata only. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from libs.common import errors


@dataclass(frozen=True, slots=True)
class Form:
    """`kind` is "" (the object itself), Table or PartialObjectMetadata (also for lists); `version` that of meta.k8s.io."""

    kind: str = ""
    version: str = "v1"


_PLAIN = Form()


def parse_accept(header: str) -> Form:
    """The first form in the Accept header that we have. Raises NotAcceptable when there is none."""
    if not header.strip():
        return _PLAIN
    for option in header.split(","):
        media_type, *raw = (part.strip() for part in option.split(";"))
        parameters = dict(p.split("=", 1) for p in raw if "=" in p)
        if media_type not in ("application/json", "application/*", "*/*"):
            continue
        kind = parameters.get("as", "").removesuffix("List")
        if not kind:
            return _PLAIN
        group, version = parameters.get("g"), parameters.get("v", "v1")
        if kind in ("Table", "PartialObjectMetadata") and group == "meta.k8s.io" and version in ("v1", "v1beta1"):
            return Form(kind, version)
    raise errors.NotAcceptable("only the following media types are accepted: application/json")


def parse_discovery_accept(header: str) -> str:
    """v2 or v2beta1 for aggregated discovery, "" for the legacy form: the first that the client names."""
    for option in header.split(","):
        media_type, *raw = (part.strip() for part in option.split(";"))
        parameters = dict(p.split("=", 1) for p in raw if "=" in p)
        if media_type != "application/json":
            continue
        if not parameters.get("as"):
            return ""
        if parameters["as"] == "APIGroupDiscoveryList" and parameters.get("v") in ("v2", "v2beta1"):
            return parameters["v"]
    return ""
