"""The writer as a whole: one write from envelope to CAS, on a memory store."""

from __future__ import annotations

from typing import Any

import pytest

from libs.common import errors
from libs.common.apiserver import sizes
from libs.common.apiserver.strategy import Strategy, WriteContext
from libs.common.resources import codec
from libs.common.resources.access import RoleTemplateBinding
from libs.common.resources.clusters import Cluster
from libs.common.resources.identity import User
from libs.common.resources.registry import BY_PLURAL
from libs.common.store.buckets import SPECS
from tests.apiserver.support import Writing, make_principal


class Users(Strategy[User]):
    model = User
    name_is_label = True

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def prepare(self, ctx: WriteContext, old: User | None, new: User) -> User:
        if old is None:
            new.private.password_hash = "argon"
            new.status.principal_id = f"local:user:{new.uid}"
        return new

    async def admit(self, ctx: WriteContext, old: User | None, new: User) -> None:
        if new.spec.display_name == "odd":
            ctx.warnings.append("odd name")

    async def after_write(self, ctx: WriteContext, old: User | None, new: User | None) -> None:
        self.seen.append(f"{ctx.verb}:{old is not None}:{new is not None}")
        raise RuntimeError("must not matter")


class Clusters(Strategy[Cluster]):
    model = Cluster

    async def prepare(self, ctx: WriteContext, old: Cluster | None, new: Cluster) -> Cluster:
        if old is None:
            new.metadata.finalizers = ["herdsman.dev/detach"]
        return new


class Bindings(Strategy[RoleTemplateBinding]):
    model = RoleTemplateBinding


@pytest.fixture
def w(clock) -> Writing:
    return Writing(clock, {"users": Users(), "clusters": Clusters(), "roletemplatebindings": Bindings()})


def user(name: str = "eve", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "management.herdsman.dev/v1", "kind": "User", "metadata": {"name": name}, "spec": spec}


async def stored(w: Writing, key: str) -> dict[str, Any]:
    entry = await w.store.get(key)
    return codec.decode_document(entry.value, entry.revision)


async def test_create_sets_what_the_server_sets_and_keeps_private_out_of_the_answer(w):
    body = user(displayName="Eve") | {
        "status": {"principalId": "local:user:forged"},
        "private": {"passwordHash": "forged"},
    }
    reply = await w.write("create", "users", body=body, field_manager="test", field_validation="Ignore")
    metadata = reply.document["metadata"]
    assert reply.created
    assert metadata["generation"] == 1
    assert metadata["resourceVersion"] == str(reply.revision)
    assert metadata["creationTimestamp"] == "2026-01-02T03:04:05Z"
    assert reply.document["status"]["principalId"] == f"local:user:{metadata['uid']}"
    assert "private" not in reply.document
    entry = await w.store.get("users.eve")
    assert codec.decode(User, entry.value, 1).private.password_hash == "argon"
    assert [(m["manager"], m["operation"]) for m in metadata["managedFields"]] == [("test", "Update")]


async def test_create_of_an_existing_name_is_refused_and_a_generated_name_is_made_again(w):
    await w.write("create", "users", body=user())
    with pytest.raises(errors.AlreadyExists, match=r'users.management.herdsman.dev "eve" already exists'):
        await w.write("create", "users", body=user())
    body = user() | {"metadata": {"generateName": "bot-"}}
    names = {(await w.write("create", "users", body=body)).document["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5
    assert all(n.startswith("bot-") and len(n) == 9 for n in names)


async def test_dry_run_goes_through_the_whole_chain_and_writes_nothing(w):
    reply = await w.write("create", "users", body=user(displayName="odd"), dry_run=True)
    assert reply.warnings == ["odd name"]
    assert "resourceVersion" not in reply.document["metadata"]
    with pytest.raises(errors.NotFound):
        await w.store.get("users.eve")
    await w.write("create", "users", body=user())
    with pytest.raises(errors.AlreadyExists):
        await w.write("create", "users", body=user(), dry_run=True)
    with pytest.raises(errors.Invalid):
        await w.write("create", "users", body=user("Not_a_name"), dry_run=True)
    assert (await w.write("delete", "users", "eve", dry_run=True)).deleted
    await w.write("patch", "users", "eve", {"spec": {"enabled": False}}, patch="merge", dry_run=True)
    assert (await stored(w, "users.eve"))["spec"]["enabled"] is True


async def test_update_needs_the_version_that_was_read(w):
    created = (await w.write("create", "users", body=user())).document
    changed = created | {"spec": {"displayName": "Eve II", "enabled": True}}
    updated = (await w.write("update", "users", "eve", changed)).document
    assert updated["metadata"]["generation"] == 2
    with pytest.raises(errors.Conflict, match="the object has been modified; please apply your changes"):
        await w.write("update", "users", "eve", changed)
    with pytest.raises(errors.Invalid, match="must be specified for an update"):
        await w.write("update", "users", "eve", user())
    with pytest.raises(errors.Conflict, match="UID in precondition"):
        await w.write("update", "users", "eve", updated | {"metadata": updated["metadata"] | {"uid": "other"}})


async def test_spec_and_status_change_only_through_their_own_doors(w):
    created = (await w.write("create", "users", body=user(displayName="Eve"))).document
    both = created | {"spec": {"displayName": "x", "enabled": True}, "status": {"mustChangePassword": True}}
    main = (await w.write("update", "users", "eve", both)).document
    assert main["spec"]["displayName"] == "x"
    assert main["status"]["mustChangePassword"] is False
    both["metadata"] = main["metadata"] | {"labels": {"a": "b"}}
    both["spec"] = {"displayName": "y", "enabled": True}
    status = (await w.write("update", "users", "eve", both, sub="status")).document
    assert status["spec"]["displayName"] == "x"
    assert status["status"]["mustChangePassword"] is True
    assert "labels" not in status["metadata"]
    assert status["metadata"]["generation"] == 2


async def test_a_write_that_changes_nothing_keeps_the_version(w):
    created = (await w.write("create", "users", body=user())).document
    reply = await w.write("patch", "users", "eve", {"spec": {"enabled": True}}, patch="merge")
    assert reply.document["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]


async def test_private_survives_every_kind_of_write(w):
    await w.write("create", "users", body=user())
    await w.write(
        "patch", "users", "eve", {"spec": {"displayName": "a"}, "private": {"passwordHash": "x"}}, patch="merge"
    )
    await w.write(
        "patch", "users", "eve", [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}], patch="json"
    )
    await w.write("patch", "users", "eve", user(displayName="a"), patch="apply", field_manager="m", force=True)
    entry = await w.store.get("users.eve")
    assert codec.decode(User, entry.value, 1).private.password_hash == "argon"


async def test_unknown_fields_are_refused_told_or_dropped(w):
    body = user(displayNme="x")
    with pytest.raises(errors.BadRequest, match=r'strict decoding error: unknown field "spec.displayNme"'):
        await w.write("create", "users", body=body, field_validation="Strict")
    reply = await w.write("create", "users", body=body, field_validation="Warn")
    assert reply.warnings == ['unknown field "spec.displayNme"']
    assert "displayNme" not in reply.document["spec"]
    with pytest.raises(errors.BadRequest, match=r'unknown field "spec.x"'):
        await w.write("patch", "users", "eve", {"spec": {"x": 1}}, patch="merge", field_validation="Strict")


async def test_wrong_types_are_told_with_their_path_and_never_converted(w):
    with pytest.raises(errors.Invalid) as caught:
        await w.write("create", "users", body=user(enabled="true"))
    assert caught.value.message == (
        'User.management.herdsman.dev "eve" is invalid: spec.enabled: Invalid value: "string": '
        'spec.enabled in body must be of type boolean: "string"'
    )
    assert [c.field for c in caught.value.causes] == ["spec.enabled"]


async def test_a_patch_without_version_is_retried_when_it_loses_a_race_and_one_with_version_is_not(w):
    created = (await w.write("create", "users", body=user())).document
    original, raced = w.store.update, []

    async def update(key, value, revision, **more):
        if not raced:
            raced.append(await original(key, value, revision))
        return await original(key, value, revision, **more)

    w.store.update = update
    reply = await w.write("patch", "users", "eve", {"metadata": {"labels": {"a": "b"}}}, patch="merge")
    assert reply.document["metadata"]["labels"] == {"a": "b"}
    raced.clear()
    version = reply.document["metadata"]["resourceVersion"]
    body = {"metadata": {"resourceVersion": version, "labels": {"a": "c"}}}
    with pytest.raises(errors.Conflict):
        await w.write("patch", "users", "eve", body, patch="merge")
    assert created["metadata"]["uid"] == reply.document["metadata"]["uid"]


async def test_delete_honours_preconditions_and_finalizers(w):
    created = (await w.write("create", "clusters", body={"metadata": {"name": "c1"}})).document
    with pytest.raises(errors.Conflict, match="Precondition failed"):
        await w.write("delete", "clusters", "c1", precondition_uid="other")
    reply = await w.write("delete", "clusters", "c1", precondition_uid=created["metadata"]["uid"])
    assert not reply.deleted
    assert reply.document["metadata"]["deletionTimestamp"] == "2026-01-02T03:04:05Z"
    again = await w.write("delete", "clusters", "c1")
    assert again.revision == reply.revision
    with pytest.raises(errors.Invalid, match="no new finalizers can be added"):
        await w.write(
            "patch", "clusters", "c1", {"metadata": {"finalizers": ["a.b/c", "herdsman.dev/detach"]}}, patch="merge"
        )
    gone = await w.write("patch", "clusters", "c1", {"metadata": {"finalizers": None}}, patch="merge")
    assert gone.deleted
    with pytest.raises(errors.NotFound, match=r'clusters.management.herdsman.dev "c1" not found'):
        await w.write("delete", "clusters", "c1")


async def test_who_may_nothing_is_denied_and_learns_nothing_of_existence(w):
    await w.write("create", "clusters", body={"metadata": {"name": "c1"}})
    await w.write("create", "clusters", body={"metadata": {"name": "c2"}})
    with pytest.raises(errors.Denied, match=r'User "bob" cannot create resource "users"'):
        await w.write("create", "users", body=user(), by="bob")
    assert (await w.write("patch", "clusters", "c1", {"spec": {"displayName": "x"}}, patch="merge", by="ann")).revision
    # bob sees no cluster: one that exists and one that does not look the same.
    for name in ("c2", "c9"):
        with pytest.raises(errors.NotFound, match=f'"{name}" not found'):
            await w.write("delete", "clusters", name, by="ann")
    with pytest.raises(errors.Denied):
        await w.write("create", "clusters", body={"metadata": {"name": "c3"}}, by="ann")


async def test_a_cluster_owner_binds_in_their_cluster_only(w):
    def binding(name: str, cluster: str) -> dict[str, Any]:
        return {"metadata": {"name": name}, "spec": {"user": "bob", "role": "x", "scope": {"cluster": cluster}}}

    assert (await w.write("create", "roletemplatebindings", body=binding("b1", "c1"), by="ann")).created
    reply = await w.write(
        "patch", "roletemplatebindings", "b2", binding("b2", "c1"), patch="apply", field_manager="m", by="ann"
    )
    assert reply.created
    with pytest.raises(errors.Denied):
        await w.write("create", "roletemplatebindings", body=binding("b3", "c2"), by="ann")
    # Moving an object into a cluster where the caller has no right is refused, too.
    with pytest.raises((errors.Denied, errors.NotFound)):
        await w.write(
            "patch", "roletemplatebindings", "b1", {"spec": {"scope": {"cluster": "c2"}}}, patch="merge", by="ann"
        )
    assert (await stored(w, "roletemplatebindings.b1"))["spec"]["scope"]["cluster"] == "c1"


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"read_only": True}, "read-only"),
        ({"clusters": ["c1"]}, "clusters only"),
    ],
)
async def test_what_the_token_forbids_is_refused_whatever_the_user_may(w, more, word):
    with pytest.raises(errors.Denied, match=word):
        await w.write("create", "users", body=user(), by=make_principal("root", **more))


async def test_verbs_and_kinds_that_are_not_served_are_refused(w):
    with pytest.raises(errors.NotFound):
        await w.write("create", "unicorns", body={})
    with pytest.raises(errors.MethodNotAllowed):
        await w.write("delete", "users", "eve", sub="status")
    with pytest.raises(errors.NotFound):
        await w.write("delete", "users", "../odd")
    with pytest.raises(errors.BadRequest, match="does not match the expected kind"):
        await w.write("create", "users", body=user() | {"kind": "Cluster"})
    with pytest.raises(errors.BadRequest):
        await w.write("create", "users", body=["no"])
    with pytest.raises(errors.BadRequest):
        await w.write("create", "users", body=user() | {"metadata": "x"})


async def test_a_forged_envelope_is_refused(w, clock):
    other = Writing(clock, {})
    w.keys.signer = other.keys.signer
    with pytest.raises(errors.Unauthenticated):
        await w.write("create", "users", body=user())


async def test_managed_fields_can_be_corrected_and_forgotten_by_a_patch(w):
    created = (
        await w.write("create", "users", body=user(displayName="x"), field_manager="kubectl-client-side-apply")
    ).document
    entries = created["metadata"]["managedFields"]
    moved = [entries[0] | {"manager": "kubectl", "operation": "Apply"}]
    patch = [{"op": "replace", "path": "/metadata/managedFields", "value": moved}]
    reply = await w.write("patch", "users", "eve", patch, patch="json", field_manager="kubectl")
    assert [(m["manager"], m["operation"]) for m in reply.document["metadata"]["managedFields"]] == [
        ("kubectl", "Apply")
    ]
    reply = await w.write("patch", "users", "eve", {"metadata": {"managedFields": [{}]}}, patch="merge")
    assert "managedFields" not in reply.document["metadata"]


async def test_an_object_that_the_store_would_not_take_is_refused_by_its_size_and_may_be_made_smaller(w):
    limit = sizes.max_object_bytes(BY_PLURAL["users"])
    large = user("big")
    large["metadata"]["annotations"] = {f"note-{n}": "x" * 4096 for n in range(limit // 4096 + 1)}
    with pytest.raises(errors.Invalid, match="annotations"):
        await w.write("create", "users", body=large)
    assert sizes.max_object_bytes(BY_PLURAL["users"]) < SPECS["identity"].max_value_bytes
    wide = User.model_validate(user("wide"))
    wide.spec.display_name = "x" * limit
    with pytest.raises(errors.TooLarge, match=f"at most {limit} are kept"):
        sizes.encode_checked(BY_PLURAL["users"], wide)
    assert len(sizes.encode_checked(BY_PLURAL["users"], wide, 2 * limit)) > limit
