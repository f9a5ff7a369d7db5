"""A small pool of threads for what would block an event loop."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

from aicache._fork import in_forked_child

__all__ = ["DaemonThreads", "Workers"]

R = TypeVar("R")

_Task: TypeAlias = tuple[Future[Any], Callable[[], Any]]


class DaemonThreads(Executor):
    """An executor of at most `count` threads that the interpreter does not wait for at its exit.

    Not a `ThreadPoolExecutor`: that one's threads are joined at exit, so that one call of a store that hangs would keep
    a finished program alive.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)
        self._ended = False

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        """Have it carried out.

        Raises:
            RuntimeError: the executor has been shut down, or there is no thread and none can be started.
        """
        future: Future[R] = Future()
        with self._lock:
            if self._ended:
                raise RuntimeError("the threads have ended")
            # A thread that is idle takes it; else there is one more, up to the bound.
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._count:
                self._add_thread()
            self._tasks.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as in Executor
        """Take no more; the threads end once the tasks are done, or without those that have not begun."""
        with self._lock:
            self._ended = True
            if cancel_futures:
                while not self._tasks.empty():
                    task = self._tasks.get()
                    if task is not None:
                        task[0].cancel()
            for _ in self._threads:
                self._tasks.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _add_thread(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self._name}_{len(self._threads)}", daemon=True)
        try:
            self._start(thread)
        except RuntimeError:
            # The system has no more threads to give: those there are will do, and only without any is it an error.
            if not self._threads:
                raise
        else:
            self._threads.append(thread)

    def _start(self, thread: threading.Thread) -> None:
        thread.start()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, act = task
            if future.set_running_or_notify_cancel():
                try:
                    result = act()
                except BaseException as error:  # noqa: BLE001 - belongs to the one who waits for the future
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del task, future, act  # An idle thread keeps nothing alive.
            self._idle.release()


class Workers:
    """Threads made at first use, anew after a fork (a child inherits the object, not its threads).

    Our own pool and not the loop's: the application's blocking model calls may fill that one, and a cache must not
    queue behind the calls it is there to save.
    """

    __slots__ = ("__weakref__", "_count", "_executor", "_lock", "_pid")

    def __init__(self, count: int = 4) -> None:
        self._count = count
        self._executor: DaemonThreads | None = None
        self._pid = 0
        self._lock = threading.Lock()
        in_forked_child(self._renew_lock)

    def _renew_lock(self) -> None:
        """In a forked child: the lock may be held by a thread that is not there."""
        self._lock = threading.Lock()

    def executor(self) -> DaemonThreads:
        """The pool of this process."""
        if self._executor is not None and self._pid == os.getpid():
            return self._executor
        with self._lock:
            if self._executor is None or self._pid != os.getpid():
                self._executor = DaemonThreads(self._count, "aicache")
                self._pid = os.getpid()
            return self._executor

    def close(self) -> None:
        """End the threads once they have finished what they are at; does not wait for them."""
        with self._lock:
            executor, self._executor = self._executor, None
            if executor is not None and self._pid == os.getpid():
                executor.shutdown(wait=False)
