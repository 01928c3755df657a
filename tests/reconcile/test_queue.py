from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from libs.common import errors
from libs.common.reconcile import DONE, After, KeyQueue, Reconciler, Terminal
from libs.common.reconcile.runner import BASE_DELAY_S, MAX_DELAY_S, backoff_s


async def taken_now(queue: KeyQueue) -> str | None:
    try:
        return await asyncio.wait_for(queue.take(), 0.01)
    except TimeoutError:
        return None


async def test_a_key_added_often_is_taken_once():
    queue = KeyQueue()
    for _ in range(5):
        queue.add("a")
    assert await taken_now(queue) == "a"
    queue.finish("a")
    assert await taken_now(queue) is None


async def test_a_key_is_never_given_to_two_workers():
    queue = KeyQueue()
    queue.add("a")
    assert await taken_now(queue) == "a"
    queue.add("a")
    assert await taken_now(queue) is None
    queue.finish("a")
    assert await taken_now(queue) == "a"


async def test_the_earliest_moment_that_was_asked_for_counts():
    moment = 0.0
    queue = KeyQueue(lambda: moment)
    queue.add("a", 10)
    queue.add("a", 5)
    queue.add("a", 20)
    moment = 4.9
    assert await taken_now(queue) is None
    moment = 5.0
    assert await taken_now(queue) == "a"
    queue.finish("a")
    moment = 100.0
    assert await taken_now(queue) is None


async def test_all_waiting_workers_are_woken_when_several_keys_come():
    queue = KeyQueue()
    takers = [asyncio.create_task(queue.take()) for _ in range(3)]
    await asyncio.sleep(0)
    for key in "abc":
        queue.add(key)
    assert sorted(await asyncio.wait_for(asyncio.gather(*takers), 1)) == ["a", "b", "c"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["add", "take", "finish"])), max_size=40))
def test_no_key_is_lost_in_any_history(history):
    async def play() -> None:
        queue, running, wanted = KeyQueue(lambda: 0.0), set(), set()
        for key, action in history:
            if action == "add":
                queue.add(key)
                wanted.add(key)
            elif action == "take" and wanted - running:
                got = await asyncio.wait_for(queue.take(), 1)
                assert got in wanted
                assert got not in running
                running.add(got)
                wanted.discard(got)
            elif action == "finish" and key in running:
                running.discard(key)
                queue.finish(key)
        for key in sorted(running):
            queue.finish(key)
        left = {await asyncio.wait_for(queue.take(), 1) for _ in range(len(queue))}
        assert left == wanted

    asyncio.run(play())


async def run_until(reconciler: Reconciler, condition, eventually) -> None:
    task = asyncio.create_task(reconciler.run(), name="reconciler")
    try:
        await eventually(condition)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_failure_is_tried_again_until_it_works(eventually):
    calls: Counter[str] = Counter()

    async def reconcile(key: str):
        calls[key] += 1
        if calls[key] < 3:
            raise errors.Unavailable("the store has no leader")
        return DONE

    reconciler = Reconciler("test", reconcile)
    reconciler.add("a")
    await run_until(reconciler, lambda: calls["a"] == 3 and not reconciler.failures, eventually)


async def test_a_bug_or_a_hang_in_one_key_stops_no_other(eventually):
    done = []

    async def reconcile(key: str):
        if key == "bug":
            raise ZeroDivisionError
        if key == "hang":
            await asyncio.Event().wait()
        done.append(key)
        return DONE

    reconciler = Reconciler("test", reconcile, workers=2, timeout_s=0.05)
    for key in ("bug", "hang", "good"):
        reconciler.add(key)
    await run_until(reconciler, lambda: "good" in done and {"bug", "hang"} <= reconciler.failures.keys(), eventually)


async def test_after_looks_again_and_terminal_does_not(eventually):
    calls: Counter[str] = Counter()

    async def reconcile(key: str):
        calls[key] += 1
        return After(0.01) if key == "again" else Terminal("it names a cluster that never was")

    reconciler = Reconciler("test", reconcile)
    reconciler.add("again")
    reconciler.add("never")
    await run_until(reconciler, lambda: calls["again"] >= 3, eventually)
    assert calls["never"] == 1


async def test_parallelism_is_bounded(eventually):
    now, most, done = 0, 0, 0

    async def reconcile(_key: str):
        nonlocal now, most, done
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1
        done += 1
        return DONE

    reconciler = Reconciler("test", reconcile, workers=3)
    for number in range(20):
        reconciler.add(str(number))
    await run_until(reconciler, lambda: done == 20, eventually)
    assert most == 3


def test_backoff_grows_to_a_ceiling_and_never_spins():
    assert all(BASE_DELAY_S / 2 <= backoff_s(n) <= MAX_DELAY_S for n in range(1, 2000, 7))
    assert max(backoff_s(30) for _ in range(50)) > 30
