"""Waiting for a commit, in a thread and on an event loop."""

import asyncio
import threading
import time

import pytest

from capi_middleware.errors import StoreError
from capi_middleware.store import commits
from capi_middleware.store.commits import Commit, Holdup, committed, end, wait_for


def soon(*some: Commit) -> threading.Thread:
    """End commits from another thread."""
    thread = threading.Thread(target=end, args=(some,))
    thread.start()
    return thread


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "BUSY_PATIENCE", 0.01)
    monkeypatch.setattr(commits, "COMMIT_PATIENCE", 0.02)


def test_a_thread_waits_until_the_commit_ends() -> None:
    commit = Commit(Holdup())
    with pytest.raises(TimeoutError):
        commit.result(0.01)
    thread = soon(commit)
    commit.result(30)
    thread.join()

    assert commit.done()
    commit.result()


def test_the_error_is_of_one_of_those_that_end_together() -> None:
    bad, good = Commit(Holdup()), Commit(Holdup())
    bad.error = StoreError("bad")
    end([bad, good])

    good.result()
    with pytest.raises(StoreError, match="bad"):
        bad.result()


class Counting(asyncio.SelectorEventLoop):
    """How often another thread wakes this loop."""

    woken = 0

    def call_soon_threadsafe(self, *given: object, **more: object) -> asyncio.Handle:
        self.woken += 1
        return super().call_soon_threadsafe(*given, **more)  # type: ignore[arg-type] # as given


def test_all_who_wait_on_a_loop_go_on_and_wake_it_once() -> None:
    loop = Counting()

    async def wait() -> None:
        some = [Commit(Holdup()) for _ in range(50)]
        tasks = [asyncio.ensure_future(committed(one)) for one in some]
        await asyncio.sleep(0)
        soon(*some).join()
        await asyncio.gather(*tasks)

    loop.run_until_complete(wait())
    loop.close()
    assert loop.woken == 1


def test_who_is_cancelled_leaves_the_others_waiting() -> None:
    async def wait() -> None:
        some = [Commit(Holdup()) for _ in range(2)]
        first, second = (asyncio.ensure_future(committed(one)) for one in some)
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        assert first.cancelled()
        assert not second.done()
        soon(*some).join()
        await second

    asyncio.run(wait())


def test_two_may_wait_for_one_commit() -> None:
    async def wait() -> None:
        commit = Commit(Holdup())
        tasks = [asyncio.ensure_future(committed(commit)) for _ in range(2)]
        await asyncio.sleep(0)
        soon(commit).join()
        await asyncio.gather(*tasks)

    asyncio.run(wait())


def test_who_comes_while_the_commit_ends_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait() -> None:
        commit, loop = Commit(Holdup()), asyncio.get_running_loop()

        def late() -> "asyncio.Future[None]":
            end([commit])  # after the first look at it
            return asyncio.Future(loop=loop)

        monkeypatch.setattr(loop, "create_future", late)
        monkeypatch.setattr(loop, "call_later", lambda *_: pytest.fail("it waits"))
        await committed(commit)

    asyncio.run(wait())


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("since", [1.0, None], ids=["held up", "slow"])
def test_patience_ends_and_who_comes_later_waits_again(since: float | None) -> None:
    async def wait() -> None:
        commit = Commit(Holdup(since))
        with pytest.raises(TimeoutError):
            await committed(commit)
        later = asyncio.ensure_future(committed(commit))
        await asyncio.sleep(0)
        soon(commit).join()
        await later

    asyncio.run(wait())


def test_patience_is_short_only_where_others_hold_the_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commits, "BUSY_PATIENCE", 0.01)
    held_up, slow = Commit(Holdup(1.0)), Commit(Holdup())

    async def wait() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(committed(held_up), 1)
        waiting = asyncio.ensure_future(committed(slow))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        soon(slow).join()
        await waiting

    asyncio.run(wait())
    with pytest.raises(TimeoutError):
        wait_for(Commit(Holdup(1.0)))
    wait_for(slow)


def test_a_write_that_hangs_for_too_long_holds_the_store_up() -> None:
    now = time.monotonic()
    assert not Commit(Holdup(writing=now)).is_held_up()
    overdue = Commit(Holdup(writing=now - commits.COMMIT_PATIENCE))
    assert overdue.is_held_up()
    with pytest.raises(TimeoutError):
        wait_for(overdue)


def test_who_waits_in_a_thread_looks_again_whether_the_store_is_held_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commits, "COMMIT_PATIENCE", 1e6)
    monkeypatch.setattr(commits, "BUSY_PATIENCE", 0.01)
    commit = Commit(Holdup())
    threading.Timer(0.1, setattr, (commit.holdup, "since", 1.0)).start()
    with pytest.raises(TimeoutError):
        wait_for(commit)


def test_a_loop_that_is_closed_is_told_nothing() -> None:
    commit = Commit(Holdup())

    async def give_up() -> None:
        task = asyncio.ensure_future(committed(commit))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(give_up())
    end([commit])
    assert commit.done()


class Broken(asyncio.SelectorEventLoop):
    """Cannot be told anything."""

    def call_soon_threadsafe(self, *given: object, **more: object) -> asyncio.Handle:
        raise OSError


def test_who_cannot_be_told_keeps_nobody_waiting() -> None:
    loop, first, second = Broken(), Commit(Holdup()), Commit(Holdup())

    async def give_up() -> None:
        asyncio.ensure_future(committed(first)).cancel()
        task = asyncio.ensure_future(committed(first))
        await asyncio.sleep(0)
        task.cancel()

    loop.run_until_complete(give_up())
    loop.close()
    waiting = threading.Thread(target=second.result, args=(9,))
    waiting.start()
    end([first, second])
    waiting.join(9)
    assert not waiting.is_alive()


def test_what_has_ended_is_not_waited_for() -> None:
    async def wait() -> None:
        await committed(good)
        with pytest.raises(StoreError, match="bad"):
            await committed(bad)

    good, bad = Commit(Holdup()), Commit(Holdup(), StoreError("bad"))
    end([good, bad])
    asyncio.run(wait())
