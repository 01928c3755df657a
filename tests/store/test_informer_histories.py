from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.store.informer import Change
from libs.common.store.memory import MemoryStore
from tests.store.informing import Running
from tests.store.watching import eventually

STEPS = st.one_of(
    st.tuples(st.sampled_from(["put", "delete", "compact"]), st.sampled_from([f"nodes.n{n}" for n in range(6)])),
    st.tuples(st.sampled_from(["interrupt", "recreate", "pause"]), st.just("")),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=30))
async def test_whatever_happens_the_copy_and_what_subscribers_heard_end_as_the_bucket_is(
    steps: list[tuple[str, str]],
) -> None:
    async with Running() as running:
        mirror: dict[str, bytes] = {}

        def follow(change: Change) -> None:
            assert (change.before.value if change.before else None) == mirror.get(change.key)
            if change.after is None:
                del mirror[change.key]
            else:
                mirror[change.key] = change.after.value

        running.informer.subscribe(follow)
        for number, (step, key) in enumerate(steps):
            await _play(running.store, step, key, str(number).encode())
        running.store.interrupt()
        live = {k: e for k, e in running.store._last.items() if not e.deleted}
        await eventually(lambda: running.informer.entries == live, within_s=2.0)
        assert mirror == {k: e.value for k, e in live.items()}
        assert running.informer.handler_failures == 0


async def _play(store: MemoryStore, step: str, key: str, value: bytes) -> None:
    live = store._live_revision(key)
    if step == "put":
        await (store.update(key, value, live) if live else store.create(key, value))
    elif step == "delete" and live:
        await store.delete(key, value, live)
    elif step == "compact" and not live:
        store.compact(key)
    elif step == "interrupt":
        store.interrupt()
    elif step == "recreate":
        store.recreate()
    elif step == "pause":
        await asyncio.sleep(0.001)
