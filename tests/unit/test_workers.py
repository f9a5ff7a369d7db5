"""Rules of the threads that carry out what would block an event loop."""

import subprocess
import sys
import threading
from concurrent.futures import Future, wait

import pytest

from aicache._workers import DaemonThreads, Workers


def test_a_task_gives_its_result_or_its_error() -> None:
    threads = DaemonThreads(2, "t")
    assert threads.submit(lambda a, b: a + b, 1, b=2).result() == 3
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 / 0).result()
    threads.shutdown()


def test_tasks_run_side_by_side_up_to_the_bound() -> None:
    threads = DaemonThreads(3, "t")
    meeting = threading.Barrier(3)
    wait([threads.submit(meeting.wait, 10) for _ in range(3)])
    assert not meeting.broken
    running = {
        future.result() for future in [threads.submit(lambda: threading.current_thread().name) for _ in range(50)]
    }
    assert running <= {"t_0", "t_1", "t_2"}
    threads.shutdown()


def test_an_idle_thread_is_used_before_another_is_made() -> None:
    threads = DaemonThreads(4, "t")
    for _ in range(20):
        threads.submit(lambda: None).result()
        # The thread says that it is idle just after it has given the result.
        while not threads._idle.acquire(timeout=10):
            pass
        threads._idle.release()
    assert len(threads._threads) == 1
    threads.shutdown()


def test_a_task_cancelled_before_it_began_never_runs() -> None:
    threads = DaemonThreads(1, "t")
    gate = threading.Event()
    first: Future[bool] = threads.submit(gate.wait)
    ran: list[int] = []
    second = threads.submit(ran.append, 1)
    assert second.cancel()
    gate.set()
    threads.shutdown()
    assert first.result()
    assert ran == []


def test_after_the_end_what_waits_is_done_and_nothing_more_is_taken() -> None:
    threads = DaemonThreads(1, "t")
    done: list[int] = []
    for number in range(5):
        threads.submit(done.append, number)
    threads.shutdown()
    assert done == [0, 1, 2, 3, 4]
    with pytest.raises(RuntimeError):
        threads.submit(lambda: None)


def test_shutting_down_may_cancel_what_has_not_begun() -> None:
    threads = DaemonThreads(1, "t")
    begun, gate = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        gate.wait()

    first = threads.submit(hold)
    waiting = [threads.submit(lambda: None) for _ in range(3)]
    begun.wait()
    threads.shutdown(wait=False, cancel_futures=True)
    gate.set()
    first.result()
    assert all(future.cancelled() for future in waiting)


def test_workers_are_made_anew_after_they_were_closed() -> None:
    workers = Workers()
    assert workers.executor().submit(lambda: 1).result() == 1
    workers.close()
    assert workers.executor().submit(lambda: 2).result() == 2
    workers.close()


def test_a_call_that_hangs_does_not_keep_the_interpreter_alive() -> None:
    program = """
import threading
from aicache._workers import Workers
begun = threading.Event()
Workers().executor().submit(lambda: (begun.set(), threading.Event().wait()))
begun.wait()
print("done")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=True)
    assert ended.stdout == b"done\n"


class ScarceThreads(DaemonThreads):
    """On a system that has no thread to give while `scarce` is set."""

    def __init__(self, count: int) -> None:
        super().__init__(count, "t")
        self.scarce = True

    def _start(self, thread: threading.Thread) -> None:
        if self.scarce:
            raise RuntimeError("can't start new thread")
        super()._start(thread)


def test_a_thread_that_could_not_be_started_does_not_count_and_its_task_never_runs() -> None:
    threads, ran = ScarceThreads(2), list[int]()
    for _ in range(3):
        with pytest.raises(RuntimeError, match="can't start"):
            threads.submit(ran.append, 1)
    threads.scarce = False
    assert threads.submit(lambda: 2).result(10) == 2
    threads.shutdown()
    assert ran == []


def test_a_task_waits_for_the_threads_there_are_when_no_more_can_be_started() -> None:
    threads, gate = ScarceThreads(2), threading.Event()
    threads.scarce = False
    first = threads.submit(gate.wait, 10)
    threads.scarce = True
    second = threads.submit(lambda: 2)
    gate.set()
    assert (first.result(10), second.result(10)) == (True, 2)
    threads.shutdown()
