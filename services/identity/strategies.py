"""What is special about writing Users and Tokens through the API. `main` gives them to the ResourceWriter.

Passwords never come this way: `handlers.change_password`. Tokens are issued by `handlers.issue_token` and here only deleted.
"""

from __future__ import annotations

from libs.common import errors
from libs.common.access.federation import is_federated
from libs.common.access.live import HasGrants
from libs.common.access.principal import local_user_principal
from libs.common.apiserver import validate
from libs.common.apiserver.strategy import Strategy, WriteContext
from libs.common.resources.identity import Token, User
from services.identity import rules
from services.identity.audit.attempts import Attempts, changed
from services.identity.inactive_rules import begin_again
from services.identity.tokens import Tokens


class UserStrategy(Strategy[User]):
    """The name is part of the impersonated user name, so it is a label: no `system:`, no dots, no case to confuse."""

    model = User
    name_is_label = True

    def __init__(self, grants: HasGrants, attempts: Attempts) -> None:
        self._grants = grants
        self._attempts = attempts

    async def prepare(self, ctx: WriteContext, old: User | None, new: User) -> User:
        """The principal id is made from the uid: a user made again under the same name is somebody else."""
        new.status.principal_id = local_user_principal(new.uid)
        if old is None:
            new.status.must_change_password = False
        return new

    async def admit(self, ctx: WriteContext, old: User | None, new: User) -> None:
        if ctx.subresource:
            raise errors.Denied("the status of a user is written by the hub alone", kind="User", name=new.name)
        if old is not None and old.spec.service != new.spec.service:
            raise validate.forbidden_field(
                User,
                new.name,
                "spec.service",
                "a person does not become a machine, nor the other way round: make another user",
            )
        if old is not None and old.spec.enabled and not new.spec.enabled:
            self._check_not_last_admin(new.name, "disabled")
        if old is not None and not old.spec.enabled and new.spec.enabled:
            begin_again(new, ctx.now)

    async def admit_delete(self, ctx: WriteContext, old: User) -> None:
        if old.spec.enabled:
            self._check_not_last_admin(old.name, "deleted")

    async def after_write(self, ctx: WriteContext, old: User | None, new: User | None) -> None:
        action = changed("user", old, new)
        if action:
            user = new or old
            assert user is not None
            self._attempts.note(action, caller=ctx.principal, account=user.name)

    def _check_not_last_admin(self, name: str, done: str) -> None:
        if rules.is_last_admin(self._grants.current, name):
            raise validate.forbidden_field(
                User, name, "metadata.name" if done == "deleted" else "spec.enabled",
                f"the last enabled admin cannot be {done}: give the role {rules.ADMIN_ROLE} to another user first",
            )  # fmt: skip


class TokenStrategy(Strategy[Token]):
    """Tokens are made by sign-in and by TokenIssue; through the API they are only read and deleted."""

    model = Token

    def __init__(self, tokens: Tokens, attempts: Attempts) -> None:
        self._tokens = tokens
        self._attempts = attempts

    async def after_write(self, ctx: WriteContext, old: Token | None, new: Token | None) -> None:
        """What is cut short here is made up for by `adoption`, which sees the deletion."""
        if old is not None and new is None:
            self._attempts.note(
                "revoke-token", "deleted", caller=ctx.principal, account=old.spec.user, token=old.name, resource="tokens", name=old.name,
                provider="" if is_federated(old.spec.provider) else old.spec.provider,
            )  # fmt: skip
            await self._tokens.forget(old)

    async def admit(self, ctx: WriteContext, old: Token | None, new: Token) -> None:
        raise errors.MethodNotAllowed(
            "tokens are issued, listed and deleted, never written", kind="Token", name=new.name
        )
