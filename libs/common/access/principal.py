"""Who calls: the identity that the front door authenticated. It holds no rights; `grants` knows those."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, Field

USER_PREFIX = "herdsman:"
"""Every user and group name that the hub impersonates begins so: nobody becomes a cluster's own `admin` by being called so."""


Owed = Literal["password", "secondFactor"]
"""What a person has to do before anything else: change the password, set up a second factor (`owed`)."""
_ID = re.compile(r"[!-~]{1,256}")


class Principal(BaseModel):
    """One authenticated caller. `principal_ids` are the ids that bindings may name: the user's own and those of its groups."""

    user: str
    user_uid: str
    principal_id: str
    group_ids: list[str] = Field(default_factory=list)
    token: str = ""
    """Name of the token that was used; for audit and for cutting streams when it is revoked."""
    clusters: list[str] = Field(default_factory=list)
    """Clusters the token is good for; empty = all and the hub."""
    projects: list[str] = Field(default_factory=list)
    """Projects the token is good for; empty = no such limit."""
    read_only: bool = False
    owes: list[Owed] = Field(default_factory=list)
    """Not empty: the caller is let through to the methods that help with it, and to nothing else."""

    @property
    def is_scoped(self) -> bool:
        """Whether the token is good for some clusters or projects alone, and so for nothing of the hub itself."""
        return bool(self.clusters or self.projects)

    @property
    def principal_ids(self) -> tuple[str, ...]:
        return (self.principal_id, *self.group_ids)


def principal_of(provider: str, kind: Literal["user", "group"], immutable_id: str) -> str:
    """`<provider>:<user|group>:<immutable id>`. Raises ValueError for an id that nobody could tell apart or bind."""
    if not _ID.fullmatch(immutable_id):
        raise ValueError("an immutable id is 1 to 256 printable ASCII characters without spaces")
    return f"{provider}:{kind}:{immutable_id}"


def cluster_group(cluster: str, role: str) -> str:
    """The synthetic group whose members have `role` in a cluster: the front door names it, the cluster's own RBAC binds it."""
    return f"{USER_PREFIX}cluster:{cluster}:{role}"


def project_group(project: str, uid: str, role: str) -> str:
    """The same for a project's namespaces. A project that is made again under the same name has another uid, and so nothing of the first."""
    return f"{USER_PREFIX}project:{project}:{uid}:{role}"


NAMESPACE_VIEWERS = f"{USER_PREFIX}hub:namespaces"
"""The group under which the front door asks a cluster for namespaces on behalf of a member of projects, having said which ones: the cluster binds it
to reading namespaces and nothing else. No role gives it, and nobody may wish for it."""


def local_group_principal(uid: str) -> str:
    """Principal id of a Group of the hub itself: `local:group:<uid>`."""
    return f"local:group:{uid}"


def local_user_principal(uid: str) -> str:
    """Principal id of a User of the hub itself: `local:user:<uid>`."""
    return f"local:user:{uid}"
