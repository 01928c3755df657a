"""What a caller may do with one object: what the token allows, and the grants.

The one question that the writer, lists and watches all ask; `libs.common.access.grants` gives the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from libs.common import errors
from libs.common.access.grants import Grants
from libs.common.access.principal import Principal
from libs.common.apiserver import validate
from libs.common.resources.meta import GROUP
from libs.common.resources.registry import ResourceType

READ_VERBS = frozenset({"get", "list", "watch"})


def check_caller(principal: Principal, verb: str) -> None:
    """What the token itself forbids, whatever its user may. Raises Denied."""
    if principal.is_scoped:
        raise errors.Denied(
            "this token is good for clusters only, not for the hub: sign in, or make a token without a list of clusters"
        )
    if principal.read_only and verb not in READ_VERBS:
        raise errors.Denied(f"this token is read-only and cannot {verb}: use another token")


def check_object(
    grants: Grants,
    principal: Principal,
    verb: str,
    rtype: ResourceType,
    name: str,
    document: Mapping[str, Any] | None,
    subresource: str = "",
) -> None:
    """Returns when the object is there and the caller may do this with it. `document` None = there is none of this name.

    Raises NotFound for what is absent and, in the same words, for what exists in secret: an object that the caller may not
    get, though they may get others of its kind. Raises Denied to those who may get none at all, whether it exists or not.
    """
    plural = rtype.plural
    if document is None:
        if grants.is_allowed(principal, verb, plural, name, subresource=subresource):
            raise absent(rtype, name)
        visible = False
    elif grants.is_allowed_on(principal, verb, plural, document, subresource):
        return
    else:
        visible = grants.is_allowed_on(principal, "get", plural, document)
    if not visible and grants.reaches(principal, "get", plural):
        raise absent(rtype, name)
    raise validate.denied(principal.user, verb, rtype.model, name, subresource=subresource)


def absent(rtype: ResourceType, name: str) -> errors.NotFound:
    """The 404 that kubectl prints."""
    return errors.NotFound(f'{rtype.plural}.{GROUP} "{name}" not found', kind=rtype.plural, name=name)
