"""What is special about people's writes to clusters and registration tokens; the generic rest is `libs.common.apiserver.writer`."""

from __future__ import annotations

from libs.common import errors
from libs.common.apiserver.strategy import Strategy, WriteContext
from libs.common.resources.clusters import Cluster, ImportSpec, RegistrationToken
from services.cluster_controller.model import FINALIZER, FORCE_DELETE, RESERVED_NAMES


class ClusterStrategy(Strategy[Cluster]):
    """A cluster gets our finalizer when it is made, and only the reconciler takes it away."""

    model = Cluster
    name_is_label = True

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


class RegistrationTokenStrategy(Strategy[RegistrationToken]):
    """People can only look at them and delete them: they are issued by `registration`."""

    model = RegistrationToken
