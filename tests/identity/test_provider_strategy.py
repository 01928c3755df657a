from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from libs.common import errors
from libs.common.crypto.sealed import KeyRing
from libs.common.resources.providers import IdentityProvider
from services.identity.bootstrap import ensure_local_provider
from services.identity.provider_strategy import IdentityProviderStrategy
from services.identity.providers.running import Providers, place
from tests.access import made
from tests.access.hub import ADMIN, running_hub
from tests.identity.recorder import Recorder, attempts_of
from tests.identity.scripted import Scripted

ADA = made.user("ada")
RING = KeyRing({"k1": bytes(32)})
SECRET = "bind-secret"


class Site:
    """A hub whose directories are scripted; `made` are the providers that were made, with the settings they got."""

    def __init__(self, hub) -> None:
        self.hub, self.made, self.problem = hub, [], None
        self.trail = Recorder()
        self.providers = Providers(hub.objects(IdentityProvider), {"ldap": self._make}, RING)
        self.writer = hub.writer(
            "identity",
            {"identityproviders": IdentityProviderStrategy(self.providers, RING, attempts_of(hub, self.trail))},
        )

    def _make(self, resource, settings):
        provider = Scripted(problem=self.problem)
        self.made.append((provider, settings))
        return provider

    async def create(self, *, dry_run: bool = False, name: str = "corp", **spec):
        ldap = {"servers": ["ldaps://one.example"], "userBase": "dc=example", **spec.pop("ldap", {})}
        document = {"metadata": {"name": name}, "spec": {"type": "ldap", "ldap": ldap, **spec}}
        return await self.hub.write(
            self.writer, ADA, "create", IdentityProvider.model_validate(document), dry_run=dry_run
        )

    async def patch(self, **spec):
        return await self.hub.write(self.writer, ADA, "patch", "corp", plural="identityproviders", body={"spec": spec})

    async def stored(self) -> IdentityProvider:
        return await self.hub.get(IdentityProvider, "corp")


@asynccontextmanager
async def running(clock):
    async with running_hub(clock) as hub:
        await hub.put(ADA, ADMIN, made.binding(ADA, "admin", everywhere=True))
        await ensure_local_provider(hub.stores["identity"], clock)
        await hub.settle()
        site = Site(hub)
        try:
            yield site
        finally:
            await site.providers.aclose()


async def test_secrets_are_sealed_and_never_answered(clock):
    async with running(clock) as site:
        reply = await site.create(ldap={"bindPassword": SECRET})
        assert SECRET not in str(reply.document)
        assert reply.document["status"]["secrets"] == ["bindPassword"]
        stored = await site.stored()
        assert SECRET not in str(stored.private)
        assert RING.open(stored.private.sealed["bind_password"], place(stored, "bind_password")) == SECRET
        assert [(e.action, e.actor, e.provider) for e in site.trail.events] == [("create-provider", "ada", "corp")]
        await site.patch(ldap={"userFilter": "(a=b)"})
        assert site.providers.open_settings(await site.stored()).bind_password == SECRET


async def test_the_same_secret_again_is_no_change(clock):
    async with running(clock) as site:
        await site.create(ldap={"bindPassword": SECRET})
        before = (await site.stored()).metadata.resource_version
        await site.patch(ldap={"bindPassword": SECRET})
        assert (await site.stored()).metadata.resource_version == before


async def test_a_provider_is_tested_before_it_is_enabled_and_with_its_secret(clock):
    async with running(clock) as site:
        site.problem = errors.Unavailable("connection refused")
        await site.create(ldap={"bindPassword": SECRET})
        with pytest.raises(errors.Invalid, match=r"test of the settings failed.*connection refused"):
            await site.patch(enabled=True)
        assert not (await site.stored()).spec.enabled
        site.problem = None
        await site.patch(enabled=True)
        provider, settings = site.made[-1]
        assert settings.bind_password == SECRET
        assert provider.closed
        assert (await site.stored()).status.last_tested == clock()


async def test_changed_settings_of_an_enabled_provider_are_tested_and_a_dry_run_tries_them(clock):
    async with running(clock) as site:
        await site.create(enabled=True)
        site.problem = errors.Unavailable("no such base")
        with pytest.raises(errors.Invalid, match="no such base"):
            await site.patch(ldap={"userBase": "dc=wrong"})
        with pytest.raises(errors.Invalid, match="no such base"):
            await site.create(name="try", enabled=True, dry_run=True)
        await site.patch(displayName="only a name")


async def test_a_secret_is_not_shown_to_another_address(clock):
    async with running(clock) as site:
        await site.create(ldap={"bindPassword": SECRET})
        with pytest.raises(errors.Invalid, match="give the secret again"):
            await site.patch(ldap={"servers": ["ldaps://evil.example"]})
        await site.patch(ldap={"servers": ["ldaps://two.example"], "bindPassword": "new-secret"})
        assert site.providers.open_settings(await site.stored()).bind_password == "new-secret"


async def test_the_hubs_own_provider_stays_and_is_the_only_one_of_its_type(clock):
    async with running(clock) as site:
        with pytest.raises(errors.Invalid, match="stays"):
            await site.hub.write(site.writer, ADA, "delete", "local", plural="identityproviders")
        other = IdentityProvider.model_validate({"metadata": {"name": "other"}, "spec": {"type": "local"}})
        with pytest.raises(errors.Invalid, match="one provider of that type"):
            await site.hub.write(site.writer, ADA, "create", other)


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "ldap"},
        {"type": "oidc", "ldap": {"servers": ["ldaps://x"], "userBase": "dc=x"}},
        {"type": "ldap", "ldap": {"servers": ["http://x"], "userBase": "dc=x"}},
        {"type": "oidc", "oidc": {"issuer": "http://issuer.example", "clientId": "x"}},
    ],
)
def test_settings_of_another_type_and_unsafe_addresses_are_refused(spec):
    with pytest.raises(ValueError, match=r"settings|must be"):
        IdentityProvider.model_validate({"metadata": {"name": "x"}, "spec": spec})


async def test_a_running_provider_is_replaced_when_its_settings_change_and_closed_when_nobody_uses_it(clock):
    async with running(clock) as site:
        await site.create(enabled=True)
        async with site.providers.use("corp") as first:
            await site.patch(ldap={"userFilter": "(a=b)"})
            async with site.providers.use("corp") as second:
                assert second is not first
            assert not first.closed
        await site.providers.aclose()
        assert first.closed
        assert second.closed


async def test_a_disabled_provider_lets_nobody_in(clock):
    async with running(clock) as site:
        await site.create(enabled=True)
        await site.patch(enabled=False)
        with pytest.raises(errors.Denied, match="disabled"):
            async with site.providers.use("corp"):
                pass


@pytest.mark.parametrize(
    "applied", ["{}", "no json", "[]", '{"spec":{"ldap":{"bindPassword":"bind-secret","servers":["x"]}}}']
)
async def test_what_kubectl_apply_keeps_of_it_holds_no_secret(clock, applied):
    async with running(clock) as site:
        name = "kubectl.kubernetes.io/last-applied-configuration"
        document = {
            "metadata": {"name": "corp", "annotations": {name: applied, "other": "kept"}},
            "spec": {"type": "ldap", "ldap": {"servers": ["ldaps://x"], "userBase": "dc=x", "bindPassword": SECRET}},
        }
        reply = await site.hub.write(site.writer, ADA, "create", IdentityProvider.model_validate(document))
        assert SECRET not in str(reply.document)
        assert reply.document["metadata"]["annotations"]["other"] == "kept"
        if "servers" in applied:
            assert "servers" in reply.document["metadata"]["annotations"][name]
