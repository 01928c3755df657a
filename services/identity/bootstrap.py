"""The first user of a new hub, made once: never again after somebody deleted it, never twice by two replicas, no default password.

A marker record says that the hub has had its first user. Marker and user are one atomic batch, so there is no moment between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import msgpack

from libs.common import errors
from libs.common.access.principal import local_user_principal
from libs.common.observe import log
from libs.common.resources.identity import User, UserPrivate, UserSpec, UserStatus
from libs.common.resources.meta import ObjectMeta, check_label, format_time
from libs.common.resources.providers import LOCAL, IdentityProvider, IdentityProviderSpec, LocalSettings
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Put, Store
from libs.common.store.objects import encode_unique
from services.identity.passwords import Passwords, check_policy

MARKER = "bootstrap.admin"


async def bootstrap_admin(
    store: Store, passwords: Passwords, user: str, password_file: Path, *,
    must_change: bool = True, any_user: bool, now: Callable[[], datetime],
) -> bool:  # fmt: skip
    """Make the first admin's user unless the hub has, or ever had, one. Returns whether it was made.

    Raises Invalid when the name or the password cannot be used, and Unavailable when the file cannot be read.
    """
    if await _is_marked(store):
        return False
    moment = now()
    if any_user:
        await _write(store, [Put(MARKER, _marker("", moment), 0)])
        return False
    try:
        check_label(user)
    except ValueError as exc:
        raise errors.Invalid(f'the bootstrap admin cannot be called "{user}": the name {exc}') from exc
    password = await _read_password(password_file)
    check_policy(password, user)
    uid = str(uuid4())
    made = User(
        metadata=ObjectMeta(name=user, uid=uid, creation_timestamp=moment, generation=1),
        spec=UserSpec(display_name=user),
        status=UserStatus(principal_id=local_user_principal(uid), must_change_password=must_change),
        private=UserPrivate(password_hash=await passwords.hash(password)),
    )
    writes = [Put(MARKER, _marker(user, moment), 0), Put(BY_MODEL[User].key(user), encode_unique(made), 0)]
    written = await _write(store, writes)
    if written:
        log.get("identity").info("bootstrap_admin_created", user=user)
    return written


async def ensure_local_provider(store: Store, now: Callable[[], datetime]) -> None:
    """The hub's own provider, made once and then the administrators'; several replicas at once make one."""
    made = IdentityProvider(
        metadata=ObjectMeta(name=LOCAL, uid=str(uuid4()), creation_timestamp=now(), generation=1),
        spec=IdentityProviderSpec(type="local", display_name="Herdsman", enabled=True, local=LocalSettings()),
    )
    try:
        await store.create(BY_MODEL[IdentityProvider].key(LOCAL), encode_unique(made))
    except errors.AlreadyExists:
        return


async def _write(store: Store, writes: list[Put]) -> bool:
    try:
        await store.batch(writes)
    except errors.Conflict:
        return False  # another replica was first
    return True


async def _is_marked(store: Store) -> bool:
    try:
        await store.get(MARKER)
    except errors.NotFound:
        return False
    return True


def _marker(user: str, moment: datetime) -> bytes:
    """In the stored form of objects, with an operation id that differs between replicas."""
    packed: bytes = msgpack.packb({"v": 1, "op": uuid4().hex, "object": {"user": user, "at": format_time(moment)}})
    return packed


async def _read_password(file: Path) -> str:
    try:
        text = await asyncio.to_thread(file.read_text, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise errors.Unavailable(f"cannot read the bootstrap admin's password from {file}: {exc}") from exc
    return text.partition("\n")[0].rstrip("\r")
