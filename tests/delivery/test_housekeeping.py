"""Housekeeping: jobs of a process run at the start and at intervals, whatever becomes of one."""

import os
import threading

import pytest

from capi_middleware import CAPI
from capi_middleware.delivery.daemon import Housekeeping, Job
from tests.support.configs import make_config
from tests.support.processes import until


def runner(*jobs: Job) -> tuple[Housekeeping, list[tuple[str, str]]]:
    caught: list[tuple[str, str]] = []
    return (
        Housekeeping(jobs, lambda error, where: caught.append((type(error).__name__, where))),
        caught,
    )


def test_jobs_run_at_the_start_and_again_after_their_interval() -> None:
    often, seldom = threading.Semaphore(0), threading.Semaphore(0)
    house, _ = runner(Job("often", 0.01, often.release), Job("seldom", 3600, seldom.release))
    house.start()
    assert seldom.acquire(timeout=10)
    for _ in range(3):
        assert often.acquire(timeout=10)
    house.stop(10)
    assert not seldom.acquire(blocking=False)


def test_a_job_that_fails_is_told_and_tried_again_and_holds_up_no_other() -> None:
    tries, other = threading.Semaphore(0), threading.Semaphore(0)

    def fail() -> None:
        tries.release()
        raise OSError

    house, caught = runner(Job("bad", 0.01, fail), Job("good", 0.01, other.release))
    house.start()
    for _ in range(2):
        assert tries.acquire(timeout=10)
        assert other.acquire(timeout=10)
    house.stop(10)
    assert set(caught) == {("OSError", "the job bad")}


def test_stop_gives_the_job_in_progress_up_and_ends_the_thread() -> None:
    begun, given_up, never = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        assert given_up.wait(10)

    house, caught = runner(Job("hang", 60, hang, given_up.set), Job("next", 60, never.set))
    house.start()
    assert begun.wait(10)
    house.stop(10)
    assert house._thread is not None
    assert not house._thread.is_alive()
    assert (caught, never.is_set()) == ([], False)


def test_jobs_run_again_after_a_stop_and_start_twice_is_one_thread() -> None:
    ran = threading.Semaphore(0)
    house, _ = runner(Job("job", 3600, ran.release))
    house.start()
    house.start()
    assert ran.acquire(timeout=10)
    house.stop(10)
    assert not ran.acquire(blocking=False)
    house.start()
    assert ran.acquire(timeout=10)
    house.stop(10)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_jobs_run_in_a_forked_child_that_starts_them() -> None:
    reader, writer = os.pipe()

    def tell() -> None:
        os.write(writer, b"%d\n" % os.getpid())

    house, _ = runner(Job("job", 3600, tell))
    house.start()
    assert os.read(reader, 99) == b"%d\n" % os.getpid()
    child = os.fork()
    if not child:
        house.start()
        house.stop(10)
        os._exit(0)
    assert os.waitpid(child, 0) == (child, 0)
    house.stop(10)
    os.close(writer)
    assert os.read(reader, 99) == b"%d\n" % child
    os.close(reader)


def test_only_a_process_that_delivers_keeps_house() -> None:
    quiet, busy = CAPI(make_config(delivery=False)), CAPI(make_config(delivery=True))
    for capi in (quiet, busy):
        capi.start()
    assert quiet._housekeeping._thread is None
    thread = busy._housekeeping._thread
    assert thread is not None
    until("the alerts are looked at", lambda: busy.store.kept("alerts"))
    for capi in (quiet, busy):
        capi.close()
    assert not thread.is_alive()
