"""One write, from the signed envelope to the acknowledged CAS: every owner serves its `write` method with a ResourceWriter.

Order: who calls → what the token allows → the new document (`patch`, `apply`, `metadata`) → may they → the model (`validate`)
→ `strategy.prepare` → `strategy.admit` → managedFields → dry run ends here → CAS. Only the last step has an effect.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import structlog

from libs.common import errors
from libs.common.apiserver import changes, metadata, rights, sizes, validate
from libs.common.apiserver.strategy import Strategy, WriteContext
from libs.common.bus.base import Message
from libs.common.contracts.messages import ResourceWrite, ResourceWriteReply
from libs.common.crypto.envelope import Verifier
from libs.common.resources import codec
from libs.common.resources.meta import GROUP, Resource, check_name
from libs.common.resources.registry import BY_PLURAL, ResourceType
from libs.common.store.base import Entry, Put, Store

if TYPE_CHECKING:
    from libs.common.access.live import HasGrants

_TRIES = 6
"""Tries of a patch that carries no resourceVersion, and of a generated name; Kubernetes makes five."""
_log = structlog.get_logger(__name__)


class ResourceWriter:
    """Writes objects of the kinds in `strategies` (plural → strategy) into their bucket. Stateless between calls."""

    def __init__(
        self,
        store: Store,
        strategies: Mapping[str, Strategy[Any]],
        verifier: Verifier,
        grants: HasGrants,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._strategies = strategies
        self._verifier = verifier
        self._grants = grants
        self._now = now

    async def handle(self, request: ResourceWrite, message: Message | None = None) -> ResourceWriteReply:
        """Do one write. Raises a family of `libs.common.errors`; nothing is written then, but after Timeout nobody knows."""
        strategy, rtype = self._find(request)
        principal = self._verifier.open(request.identity)
        rights.check_caller(principal, request.verb)
        ctx = WriteContext(
            principal=principal, grants=self._grants.current, now=self._now(), verb=request.verb,
            subresource=request.subresource, dry_run=request.options.dry_run, request_id=request.request_id,
        )  # fmt: skip
        for attempt in range(1, _TRIES + 1):
            ctx.warnings.clear()
            try:
                if request.verb == "create":
                    return await self._create(ctx, strategy, rtype, request, request.body)
                if request.verb == "delete":
                    return await self._delete(ctx, strategy, rtype, request)
                return await self._change(ctx, strategy, rtype, request)
            except _LostRace as race:
                if attempt == _TRIES or not race.may_retry:
                    raise race.error from race
            await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))
        raise AssertionError("the loop above returns or raises")

    def _find(self, request: ResourceWrite) -> tuple[Strategy[Any], ResourceType]:
        rtype, strategy = BY_PLURAL.get(request.plural), self._strategies.get(request.plural)
        if rtype is None or strategy is None:
            raise errors.NotFound(f'the hub has no resource type "{request.plural}" here', kind=request.plural)
        if request.verb not in rtype.verbs and not (request.subresource and rtype.has_status):
            raise errors.MethodNotAllowed(
                f"{request.verb} is not supported on {rtype.plural}.{GROUP}", kind=rtype.plural
            )
        if request.subresource and (not rtype.has_status or request.verb not in ("update", "patch")):
            raise errors.MethodNotAllowed(f"{request.verb} is not supported on {rtype.plural}/{request.subresource}")
        if request.verb != "create" and not _is_name(request.name):
            raise rights.absent(rtype, request.name)
        return strategy, rtype

    # ── create ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _create(
        self, ctx: WriteContext, strategy: Strategy[Any], rtype: ResourceType, request: ResourceWrite, body: Any
    ) -> ResourceWriteReply:
        model, document = strategy.model, changes.check_document(strategy.model, body)
        if not ctx.grants.is_allowed_on(ctx.principal, "create", rtype.plural, document):
            raise validate.denied(ctx.principal.user, "create", model)
        ctx.warnings += validate.check_fields(model, document, request.options.field_validation)
        # Another name is made, or the apply is made on what is there now.
        may_retry = request.verb == "patch" or (not request.name and not document.get("metadata", {}).get("name"))
        wanted = metadata.prepare_create(model, document, request.name, ctx.now)
        final = await self._admitted(ctx, strategy, None, wanted)
        changes.record(None, final, request, ctx.now)
        value = sizes.encode_checked(rtype, final)
        if ctx.dry_run:
            await self._check_absent(rtype, final.name)
            return _reply(ctx, final, 0, created=True)
        extra = await strategy.extra_puts(ctx, None, final)
        try:
            if extra:
                revision = await self._store.batch([*extra, Put(rtype.key(final.name), value, 0)])
            else:
                revision = await self._store.create(rtype.key(final.name), value)
        except errors.AlreadyExists as exc:
            raise _LostRace(_exists(rtype, final.name), may_retry=may_retry) from exc
        except errors.Conflict as exc:
            try:
                await self._check_absent(rtype, final.name)
            except errors.AlreadyExists as there:
                raise _LostRace(there, may_retry=may_retry) from exc
            raise _LostRace(exc, may_retry=True) from exc
        await self._after(ctx, strategy, None, final)
        return _reply(ctx, final, revision, created=True)

    async def _check_absent(self, rtype: ResourceType, name: str) -> None:
        try:
            await self._store.get(rtype.key(name))
        except errors.NotFound:
            return
        raise _exists(rtype, name)

    # ── update and patch ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _change(
        self, ctx: WriteContext, strategy: Strategy[Any], rtype: ResourceType, request: ResourceWrite
    ) -> ResourceWriteReply:
        model = strategy.model
        try:
            entry = await self._store.get(rtype.key(request.name))
        except errors.NotFound:
            if request.patch_type == "apply" and not request.subresource:
                wanted = changes.check_document(model, request.body)
                self._check_allowed(ctx, rtype, wanted, request)
                return await self._create(ctx, strategy, rtype, request, request.body)
            self._check_allowed(ctx, rtype, None, request)
            raise rights.absent(rtype, request.name) from None
        old = codec.decode(model, entry.value, entry.revision)
        before = codec.to_document(old)
        self._check_allowed(ctx, rtype, before, request)
        change = changes.compute(model, before, request, ctx.now)
        ctx.warnings += change.warnings
        final = await self._admitted(ctx, strategy, old, change.document)
        self._check_allowed(ctx, rtype, codec.to_document(final), request)
        changes.record(before, final, request, ctx.now, change)
        if changes.is_same(old, final):
            return _reply(ctx, old, entry.revision)
        if final.deleting and not final.metadata.finalizers:
            return await self._remove(ctx, strategy, rtype, old, final, entry, may_retry=change.may_retry)
        value = sizes.encode_checked(rtype, final, len(entry.value))
        if ctx.dry_run:
            return _reply(ctx, final, entry.revision)
        extra = await strategy.extra_puts(ctx, old, final)
        try:
            if extra:
                revision = await self._store.batch([*extra, Put(entry.key, value, entry.revision)])
            else:
                revision = await self._store.update(entry.key, value, entry.revision)
        except errors.Conflict as exc:
            raise _LostRace(metadata.stale(model, request.name), may_retry=change.may_retry) from exc
        await self._after(ctx, strategy, old, final)
        return _reply(ctx, final, revision)

    # ── delete ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _delete(
        self, ctx: WriteContext, strategy: Strategy[Any], rtype: ResourceType, request: ResourceWrite
    ) -> ResourceWriteReply:
        model, options = strategy.model, request.options
        try:
            entry = await self._store.get(rtype.key(request.name))
        except errors.NotFound:
            self._check_allowed(ctx, rtype, None, request)
            raise rights.absent(rtype, request.name) from None
        old = codec.decode(model, entry.value, entry.revision)
        before = codec.to_document(old)
        self._check_allowed(ctx, rtype, before, request)
        metadata.check_precondition(model, before, options.precondition_uid, options.precondition_resource_version)
        await strategy.admit_delete(ctx, old)
        may_retry = not options.precondition_resource_version
        if not old.metadata.finalizers:
            return await self._remove(ctx, strategy, rtype, old, old, entry, may_retry=may_retry)
        if old.deleting:
            return _reply(ctx, old, entry.revision)
        final = old.model_copy(update={"metadata": old.metadata.model_copy(update={"deletion_timestamp": ctx.now})})
        if ctx.dry_run:
            return _reply(ctx, final, entry.revision)
        try:
            revision = await self._store.update(entry.key, codec.encode(final, secrets.token_hex(8)), entry.revision)
        except errors.Conflict as exc:
            raise _LostRace(metadata.stale(model, old.name), may_retry=may_retry) from exc
        await self._after(ctx, strategy, old, final)
        return _reply(ctx, final, revision)

    async def _remove(
        self, ctx: WriteContext, strategy: Strategy[Any], rtype: ResourceType, old: Resource, last: Resource, entry: Entry,
        *, may_retry: bool,
    ) -> ResourceWriteReply:  # fmt: skip
        """The tombstone: nothing holds the object any more."""
        if ctx.dry_run:
            return _reply(ctx, last, entry.revision, deleted=True)
        extra = await strategy.extra_puts(ctx, old, None)
        tombstone = codec.encode(last, secrets.token_hex(8), deleted=True)
        try:
            if extra:
                revision = await self._store.batch([*extra, Put(entry.key, tombstone, entry.revision, deleted=True)])
            else:
                revision = await self._store.delete(entry.key, tombstone, entry.revision)
        except errors.Conflict as exc:
            raise _LostRace(metadata.stale(strategy.model, old.name), may_retry=may_retry) from exc
        await self._after(ctx, strategy, old, None)
        return _reply(ctx, last, revision, deleted=True)

    # ── shared steps ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _admitted(
        self, ctx: WriteContext, strategy: Strategy[Any], old: Resource | None, document: dict[str, Any]
    ) -> Resource:
        """The valid model of a new document, prepared and admitted; status and private are the hub's own."""
        model: type[Resource] = strategy.model
        name = str(document["metadata"]["name"])
        new = validate.parse_object(model, document, name)
        if old is not None and "private" in model.model_fields:
            new = new.model_copy(update={"private": getattr(old, "private", None)})
        causes = metadata.check_metadata(model, new.metadata, name_is_label=strategy.name_is_label)
        if causes:
            raise validate.invalid(model, name, causes)
        prepared: Resource = await strategy.prepare(ctx, old, new)
        if old is not None:
            changes.set_generation(old, prepared)
        await strategy.admit(ctx, old, prepared)
        return prepared

    def _check_allowed(
        self, ctx: WriteContext, rtype: ResourceType, document: Mapping[str, Any] | None, request: ResourceWrite
    ) -> None:
        rights.check_object(ctx.grants, ctx.principal, request.verb, rtype, request.name, document, request.subresource)

    async def _after(self, ctx: WriteContext, strategy: Strategy[Any], old: Any, new: Any) -> None:
        """The write is durable whatever happens here: a failure is logged, the answer stays."""
        try:
            await strategy.after_write(ctx, old, new)
        except Exception:  # noqa: BLE001 - see above; cancellation passes
            _log.exception(
                "after_write_failed", kind=strategy.model.KIND, name=(new or old).name, request_id=ctx.request_id
            )


class _LostRace(Exception):
    """Somebody wrote between read and CAS; `error` is what the client hears when no retry may hide it."""

    def __init__(self, error: errors.HerdsmanError, *, may_retry: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.may_retry = may_retry


def _reply(
    ctx: WriteContext, resource: Resource, revision: int, *, created: bool = False, deleted: bool = False
) -> ResourceWriteReply:
    document = codec.to_document(resource)
    if revision:
        document["metadata"]["resourceVersion"] = str(revision)
    return ResourceWriteReply(
        document=document, revision=revision, created=created, deleted=deleted, warnings=list(ctx.warnings)
    )


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except ValueError:
        return False
    return True


def _exists(rtype: ResourceType, name: str) -> errors.AlreadyExists:
    return errors.AlreadyExists(f'{rtype.plural}.{GROUP} "{name}" already exists', kind=rtype.plural, name=name)
