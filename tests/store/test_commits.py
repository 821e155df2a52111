"""Waiting for a commit, in a thread and on an event loop."""

import asyncio
import threading

import pytest

from capi_middleware.errors import StoreError
from capi_middleware.store import commits
from capi_middleware.store.commits import Batch, Commit, committed, ended


def soon(batch: Batch) -> threading.Thread:
    """End the batch from another thread."""
    thread = threading.Thread(target=batch.end)
    thread.start()
    return thread


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "BUSY_PATIENCE", 0.01)
    monkeypatch.setattr(commits, "COMMIT_PATIENCE", 0.02)


def test_a_thread_waits_until_the_batch_ends() -> None:
    commit = Commit(Batch())
    with pytest.raises(TimeoutError):
        commit.result(0.01)
    thread = soon(commit.batch)
    commit.result(30)
    thread.join()

    assert commit.done()
    commit.result()


def test_the_error_is_of_one_part_of_a_batch() -> None:
    batch = Batch()
    bad, good = Commit(batch), Commit(batch)
    bad.error = StoreError("bad")
    batch.end()

    good.result()
    with pytest.raises(StoreError, match="bad"):
        bad.result()


def test_all_who_wait_on_a_loop_go_on_and_wake_it_once() -> None:
    async def wait() -> None:
        batch, woken = Batch(), list[object]()
        loop = asyncio.get_running_loop()
        tasks = [asyncio.ensure_future(committed(Commit(batch))) for _ in range(50)]
        await asyncio.sleep(0)
        (tell,) = batch.waiting.values()
        batch.waiting[loop] = lambda: woken.append(tell)
        soon(batch).join()
        assert woken == [tell]
        tell()
        await asyncio.gather(*tasks)

    asyncio.run(wait())


def test_who_is_cancelled_leaves_the_others_waiting() -> None:
    async def wait() -> None:
        batch = Batch()
        first, second = (asyncio.ensure_future(committed(Commit(batch))) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        assert first.cancelled()
        assert not second.done()
        soon(batch).join()
        await second

    asyncio.run(wait())


def test_who_comes_while_the_batch_ends_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def wait() -> None:
        batch = Batch()
        started = commits._Arrivals.__init__

        def late(*given: object) -> None:
            started(*given)  # type: ignore[arg-type] # as they were
            batch.waiting.clear()
            batch.done = True

        monkeypatch.setattr(commits._Arrivals, "__init__", late)
        await asyncio.wait_for(committed(Commit(batch)), 1)

    asyncio.run(wait())


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("held_up", [True, False])
def test_patience_ends_and_who_comes_later_waits_again(held_up: bool) -> None:
    async def wait() -> None:
        batch = Batch(lambda: held_up)
        with pytest.raises(TimeoutError):
            await committed(Commit(batch))
        assert batch.waiting == {}
        later = asyncio.ensure_future(committed(Commit(batch)))
        await asyncio.sleep(0)
        soon(batch).join()
        await later

    asyncio.run(wait())


def test_a_loop_that_is_closed_is_told_nothing() -> None:
    batch = Batch()

    async def give_up() -> None:
        task = asyncio.ensure_future(committed(Commit(batch)))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(give_up())
    assert batch.waiting
    batch.end()


def test_who_cannot_be_told_keeps_nobody_waiting() -> None:
    batch = Batch()

    def fail() -> None:
        raise OSError

    batch.waiting["broken"] = fail
    soon(batch).join()

    Commit(batch).result(9)
    assert batch.waiting == {}


def test_what_has_ended_is_not_waited_for() -> None:
    async def wait() -> None:
        await committed(ended())
        with pytest.raises(StoreError, match="bad"):
            await committed(ended(StoreError("bad")))

    asyncio.run(wait())
