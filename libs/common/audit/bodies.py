"""What may be shown of a call's bodies, and how. Pure; the front door collects bytes (`services.auth_proxy.audit_tap`) and this reads them.

An allow-list: bodies of the kinds named here and of no others, unless the deciding rule names the very group and resource; some kinds
never, whatever a rule says. A body that holds an object of such a kind at any depth is left out as a whole.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

from libs.common.audit.policy import Decision
from libs.common.audit.request import RequestInfo
from libs.common.resources.meta import GROUP

LIMIT = 64 * 1024
_MAX_DEPTH = 64
_ALL = frozenset({"*"})
_SHOWN: dict[str, frozenset[str]] = {
    "": frozenset({
        "bindings", "componentstatuses", "endpoints", "events", "limitranges", "namespaces", "nodes", "persistentvolumeclaims",
        "persistentvolumes", "pods", "podtemplates", "replicationcontrollers", "resourcequotas", "serviceaccounts", "services",
    }),
    "apps": _ALL, "autoscaling": _ALL, "batch": _ALL, "policy": _ALL,
    "admissionregistration.k8s.io": _ALL, "apiextensions.k8s.io": _ALL, "apiregistration.k8s.io": _ALL,
    "authorization.k8s.io": _ALL, "coordination.k8s.io": _ALL, "discovery.k8s.io": _ALL, "events.k8s.io": _ALL,
    "flowcontrol.apiserver.k8s.io": _ALL, "metrics.k8s.io": _ALL, "networking.k8s.io": _ALL, "node.k8s.io": _ALL,
    "rbac.authorization.k8s.io": _ALL, "scheduling.k8s.io": _ALL, "storage.k8s.io": _ALL,
    GROUP: frozenset({"admissionpolicies", "auditpolicies", "clusters", "federatedcredentials", "nodes", "podsecuritytemplates", "projects", "roletemplatebindings", "roletemplates"}),
}  # fmt: skip
_NEVER_GROUPS = frozenset({"authentication.k8s.io", "certificates.k8s.io"})
_NEVER = frozenset({("", "secrets"), ("", "serviceaccounts/token")})
_NEVER_KINDS = frozenset({
    "Secret", "SecretList", "TokenReview", "TokenRequest", "Token", "TokenList", "RegistrationToken", "RegistrationTokenList",
    "Registration", "Kubeconfig", "Config", "CertificateSigningRequest",
})  # fmt: skip
_NEVER_KIND_TEXT = re.compile(r'"?kind"?\s*:\s*"?(?:' + "|".join(sorted(_NEVER_KINDS)) + r")\b")
_STREAMS = frozenset({"attach", "exec", "log", "portforward", "proxy"})
_CREDENTIALS = re.compile(
    r"\b(hmr?_[A-Za-z0-9]+)_[^\s\"'\\/.]+|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
)
_DROPPED_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"


def refuse_reason(info: RequestInfo, decision: Decision, *, upgrade: bool) -> str:
    """Why no body of this call is shown, whatever its bytes; empty = they may be looked at."""
    if upgrade or info.verb in ("watch", "proxy") or info.subresource in _STREAMS:
        return "streams are never part of an event"
    if not info.resource:
        return "bodies are shown of resources only"
    full = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    if info.api_group in _NEVER_GROUPS or (info.api_group, info.resource) in _NEVER or (info.api_group, full) in _NEVER:
        return "bodies of this kind are never shown"
    shown = _SHOWN.get(info.api_group, frozenset())
    if info.api_group == GROUP:
        allowed = info.resource in shown and info.subresource in ("", "status")
        return "" if allowed else "bodies of this kind are never shown"
    if decision.named or "*" in shown or info.resource in shown:
        return ""
    return "bodies of this kind are shown only where a rule names its group and resource"


def mask_credentials(text: str) -> str:
    """Whatever has the form of a token of the hub or of a JWT, masked."""
    if "hm" not in text and "eyJ" not in text:
        return text
    return _CREDENTIALS.sub(lambda m: f"{m.group(1)}_***" if m.group(1) else "***", text)


def read_body(data: bytes, size: int, *, content_type: str, encoding: str = "", chunked: bool = False) -> Any:
    """What an event shows of a body: the object, or a note that says what was there. `data` is as it was on the wire, cut at a limit;
    `size` is the length of all of it on the wire."""
    if not size:
        return None
    note: dict[str, Any] = {"contentType": content_type[:128], "size": size}
    kind = content_type.partition(";")[0].strip().lower()
    if not (kind in ("application/json", "application/apply-patch+yaml") or kind.endswith("+json")):
        return {**note, "omitted": "only JSON is shown"}
    plain = dechunk(data) if chunked else data
    cut = len(data) < size
    if encoding.strip().lower() == "gzip":
        try:
            inflater = zlib.decompressobj(31)
            plain = inflater.decompress(plain, LIMIT + 1)
            cut = cut or bool(inflater.unconsumed_tail)
        except zlib.error:
            return {**note, "omitted": "the compressed body can't be read"}
    elif encoding not in ("", "identity"):
        return {**note, "omitted": "its encoding is not read here"}
    if cut or len(plain) > LIMIT:
        return _prefix(note, plain[:LIMIT])
    try:
        document = json.loads(plain)
        problem = _tidy(document)
        text = "" if problem else json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return {**note, "omitted": "it is not JSON that can be read"}
    if problem:
        return {**note, "omitted": problem}
    masked = mask_credentials(text)
    return document if masked == text else json.loads(masked)


def _prefix(note: dict[str, Any], plain: bytes) -> dict[str, Any]:
    """The beginning of what is too long to be read as a document: as text, after a look for kinds that are never shown."""
    text = plain.decode("utf-8", "replace")
    if _NEVER_KIND_TEXT.search(text):
        return {**note, "truncated": True, "omitted": "it holds an object of a kind that is never shown"}
    # The end may be half of something that would have been masked.
    return {**note, "truncated": True, "prefix": mask_credentials(text)[: LIMIT - 1024]}


def _tidy(document: Any) -> str:
    """Take out what only repeats; returns why the document is not shown, if so."""
    waiting: list[tuple[Any, int]] = [(document, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            return "it is nested too deeply"
        if isinstance(value, dict):
            if value.get("kind") in _NEVER_KINDS if isinstance(value.get("kind"), str) else False:
                return "it holds an object of a kind that is never shown"
            value.pop("managedFields", None)
            value.pop(_DROPPED_ANNOTATION, None)
            waiting += [(item, depth + 1) for item in value.values() if isinstance(item, (dict, list))]
        elif isinstance(value, list):
            waiting += [(item, depth + 1) for item in value if isinstance(item, (dict, list))]
    return ""


def dechunk(data: bytes) -> bytes:
    """The content of a chunked body as far as it is there. The relay has checked its form already."""
    parts, at = [], 0
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            break
        try:
            length = int(data[at:end].partition(b";")[0], 16)
        except ValueError:
            break
        if length <= 0:
            break
        parts.append(data[end + 2 : end + 2 + length])
        at = end + 2 + length + 2
    return b"".join(parts)
