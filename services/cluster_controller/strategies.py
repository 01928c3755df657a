"""What is special about people's writes to clusters and registration tokens; the generic rest is `libs.common.apiserver.writer`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from libs.common import errors
from libs.common.access.bindings import BindingIndex
from libs.common.access.lasting import grants_until
from libs.common.apiserver.strategy import Strategy, WriteContext
from libs.common.resources.access import BindingScope
from libs.common.resources.clusters import Cluster, ImportSpec, RegistrationToken
from libs.common.resources.selectors import is_selected
from services.cluster_controller.model import FINALIZER, FORCE_DELETE, RESERVED_NAMES
from services.cluster_controller.policies import Policy, check_labels

_TOLD = 5


class ClusterStrategy(Strategy[Cluster]):
    """A cluster gets our finalizer when it is made, and only the reconciler takes it away."""

    model = Cluster
    name_is_label = True
    keeps_creator = True

    def __init__(self, bindings: BindingIndex, policies: Callable[[], Iterable[Policy]] = tuple) -> None:
        self._bindings = bindings
        self._policies = policies

    async def prepare(self, ctx: WriteContext, old: Cluster | None, new: Cluster) -> Cluster:
        if new.spec.imported is None:
            new = new.model_copy(update={"spec": new.spec.model_copy(update={"imported": ImportSpec()})})
        finalizers = new.metadata.finalizers or []
        needed = old is None or FINALIZER in (old.metadata.finalizers or ())
        if needed and FINALIZER not in finalizers:
            if old is not None:
                ctx.warnings.append(
                    f"the finalizer {FINALIZER} was kept: to give up what the agent left, delete with the annotation {FORCE_DELETE}=true"
                )
            new = new.model_copy(
                update={"metadata": new.metadata.model_copy(update={"finalizers": [*finalizers, FINALIZER]})}
            )
        return new

    async def admit(self, ctx: WriteContext, old: Cluster | None, new: Cluster) -> None:
        if ctx.subresource:
            # The agent's public key lies in it: whoever could write that would be the cluster's agent.
            raise errors.Denied("the status of a cluster is written by the hub alone", kind="Cluster", name=new.name)
        if new.name in RESERVED_NAMES:
            why = f'"{new.name}" is reserved: kubeconfigs call the hub itself so'
            raise errors.Invalid(
                f'Cluster.management.herdsman.dev "{new.name}" is invalid: metadata.name: Invalid value: {why}',
                kind="Cluster", name=new.name, causes=[errors.Cause("metadata.name", why)],
            )  # fmt: skip
        asks = (new.metadata.annotations or {}).get(FORCE_DELETE)
        asked = (old.metadata.annotations or {}).get(FORCE_DELETE) if old is not None else None
        # It makes the hub forget a cluster, so it takes the right to delete it, not only to change it.
        if asks != asked and not ctx.grants.is_allowed(ctx.principal, "delete", "clusters", new.name, new.name):
            raise errors.Denied(
                f"only who may delete the cluster may set the annotation {FORCE_DELETE}", kind="Cluster", name=new.name
            )
        if old is not None:
            self._check_labels(ctx, old, new)
            check_labels(self._policies(), ctx, old, new)

    def _check_labels(self, ctx: WriteContext, old: Cluster, new: Cluster) -> None:
        """Labels that bring roles into the cluster give them, so they take what giving them takes. Raises Denied.

        A cluster that is being made holds nothing yet: its first labels are its maker's to choose.
        """
        before, after = old.metadata.labels or {}, new.metadata.labels or {}
        if before == after:
            return
        given = {
            (fact.role, fact.not_after)
            for fact in self._bindings.selecting()
            if fact.is_counting(ctx.now) and is_selected(fact.selector, after) and not is_selected(fact.selector, before)
        }  # fmt: skip
        for name, until in given:
            role = ctx.grants.roles.get(name)
            if role is None:
                continue
            lasting = grants_until(ctx.grants, ctx.principal, self._bindings, until)
            lacking = lasting.covers(ctx.principal, role, BindingScope(cluster=new.name))
            if lacking:
                more = f" and {len(lacking) - _TOLD} more" if len(lacking) > _TOLD else ""
                raise errors.Denied(
                    f'cannot change the labels of cluster "{new.name}": bindings by label would give the role "{name}" in it, '
                    f"which has rights that you lack, or hold for a shorter time: {'; '.join(lacking[:_TOLD])}{more}",
                    kind="Cluster", name=new.name,
                )  # fmt: skip


class RegistrationTokenStrategy(Strategy[RegistrationToken]):
    """People can only look at them and delete them: they are issued by `registration`."""

    model = RegistrationToken
