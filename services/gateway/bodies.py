"""Bodies of requests → values: JSON, YAML and Kubernetes' protobuf, with limits, and duplicate keys found. Never trusts size or depth."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from aiohttp import web

from libs.common import errors
from libs.common.apiserver import protobuf

MAX_BYTES = 1536 * 1024
"""As etcd's request limit, which sets what clients of Kubernetes expect; NATS's payload limit must be above it."""
MAX_YAML_BYTES = 128 * 1024
"""Reading YAML takes about a hundred times as long as reading JSON; clients that send much send JSON, also where they call it YAML."""
MAX_DEPTH = 64
MAX_INTEGER = 2**63 - 1
JSON, YAML = "application/json", "application/yaml"
_YAML_TYPES = (YAML, "application/x-yaml", "text/yaml", "application/apply-patch+yaml")


@dataclass(frozen=True, slots=True)
class Body:
    """`duplicates` are the JSON paths of keys that came twice (the last one counts)."""

    value: Any
    duplicates: list[str] = field(default_factory=list)


async def read_body(request: web.Request, default_type: str = JSON) -> Body:
    """The body by its Content-Type; an empty one is None. Raises BadRequest, TooLarge, UnsupportedMediaType."""
    data = await read_bytes(request)
    content_type = request.headers.get("Content-Type", default_type).split(";")[0].strip().lower()
    if not data.strip():
        return Body(None)
    if content_type == protobuf.MEDIA_TYPE:
        return Body(protobuf.parse_envelope(data))
    if content_type in _YAML_TYPES and data.lstrip()[:1] not in b"{[":
        if len(data) > MAX_YAML_BYTES:
            raise errors.TooLarge(
                f"the YAML is too large: the limit is {MAX_YAML_BYTES} bytes; JSON may have {MAX_BYTES}"
            )
        # It takes long enough that other calls would wait for it.
        return await asyncio.to_thread(parse_yaml, data)
    if content_type == JSON or content_type in _YAML_TYPES or content_type.endswith("+json"):
        return parse_json(data)
    raise errors.UnsupportedMediaType(
        f"the body of the request was in an unknown format ({content_type}) - accepted media types include: {JSON}, {YAML}"
    )


async def read_bytes(request: web.Request) -> bytes:
    """All bytes of the body, up to the limit. Raises TooLarge."""
    if request.content_length is not None and request.content_length > MAX_BYTES:
        raise _too_large()
    data = bytearray()
    async for chunk in request.content.iter_any():
        data += chunk
        if len(data) > MAX_BYTES:
            raise _too_large()
    return bytes(data)


class _Pairs(dict[str, Any]):
    """An object of JSON that knows which of its keys came twice."""

    twice: tuple[str, ...] = ()


def _find_twice(keys: Iterable[str]) -> tuple[str, ...]:
    """In one pass: a body has room for hundreds of thousands of keys."""
    return tuple(sorted(key for key, count in Counter(keys).items() if count > 1))


def parse_json(data: bytes) -> Body:
    """Raises BadRequest for anything that is not plain, finite JSON of bounded depth."""

    def pairs(items: list[tuple[str, Any]]) -> _Pairs:
        made = _Pairs(items)
        if len(made) != len(items):
            made.twice = _find_twice(key for key, _ in items)
        return made

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except RecursionError as exc:
        raise errors.BadRequest(f"the body is nested deeper than {MAX_DEPTH} levels") from exc
    except ValueError as exc:
        raise errors.BadRequest(f"the body is not valid JSON: {str(exc)[:200]}") from exc
    duplicates: list[str] = []
    return Body(_plain(value, "", 0, duplicates), duplicates)


def parse_yaml(data: bytes) -> Body:
    """YAML with JSON's types only. Raises BadRequest; aliases are refused, they can blow up without limit."""
    try:
        value = yaml.load(data, _Loader)  # noqa: S506 - _Loader builds JSON's types and nothing else
    except RecursionError as exc:
        raise errors.BadRequest(f"the body is nested deeper than {MAX_DEPTH} levels") from exc
    except (yaml.YAMLError, ValueError) as exc:
        raise errors.BadRequest(f"the body is not valid YAML: {' '.join(str(exc).split())[:200]}") from exc
    duplicates: list[str] = []
    return Body(_plain(value, "", 0, duplicates), duplicates)


def check_object(body: Body) -> dict[str, Any]:
    """The body as a JSON object. Raises BadRequest."""
    if not isinstance(body.value, dict):
        raise errors.BadRequest("the body must be a JSON object")
    return body.value


def _plain(value: Any, path: str, depth: int, duplicates: list[str]) -> Any:
    """Plain dicts and lists; checks what neither msgpack nor a reader of ours could take."""
    if depth > MAX_DEPTH:
        raise errors.BadRequest(f"the body is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        duplicates += [f"{path}.{key}" if path else key for key in getattr(value, "twice", ())]
        plain: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise errors.BadRequest("keys must be strings")
            plain[_text(key)] = _plain(item, f"{path}.{key}" if path else key, depth + 1, duplicates)
        return plain
    if isinstance(value, list):
        return [_plain(item, f"{path}[{index}]", depth + 1, duplicates) for index, item in enumerate(value)]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_INTEGER:
        raise errors.BadRequest("a number is outside of the 64-bit range")
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise errors.BadRequest("a string holds half of a surrogate pair") from exc
    return text


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as Kubernetes reads it: JSON's types, no timestamps, no aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("aliases are not supported")
        return super().compose_node(parent, index)

    def construct_pairs_object(self, node: yaml.MappingNode) -> _Pairs:
        items = [(self.construct_object(k, deep=True), self.construct_object(v, deep=True)) for k, v in node.value]
        if not all(isinstance(k, str) for k, _ in items):
            raise ValueError("keys must be strings")
        made = _Pairs(items)
        made.twice = _find_twice(key for key, _ in items)
        return made


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":merge", ":value"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_pairs_object)


def _too_large() -> errors.TooLarge:
    return errors.TooLarge(f"the request is too large: the limit is {MAX_BYTES} bytes")
