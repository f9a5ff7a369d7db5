"""A small pool of threads for what would block an event loop."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from aicache._fork import in_forked_child

__all__ = ["Workers"]


class Workers:
    """Threads made at first use, anew after a fork (a child inherits the object, not its threads).

    Our own pool and not the loop's: the application's blocking model calls may fill that one, and a cache must not
    queue behind the calls it is there to save.
    """

    __slots__ = ("__weakref__", "_count", "_executor", "_lock", "_pid")

    def __init__(self, count: int = 4) -> None:
        self._count = count
        self._executor: ThreadPoolExecutor | None = None
        self._pid = 0
        self._lock = threading.Lock()
        in_forked_child(self._renew_lock)

    def _renew_lock(self) -> None:
        """In a forked child: the lock may be held by a thread that is not there."""
        self._lock = threading.Lock()

    def executor(self) -> ThreadPoolExecutor:
        """The pool of this process."""
        if self._executor is not None and self._pid == os.getpid():
            return self._executor
        with self._lock:
            if self._executor is None or self._pid != os.getpid():
                self._executor = ThreadPoolExecutor(self._count, thread_name_prefix="aicache")
                self._pid = os.getpid()
            return self._executor

    def close(self) -> None:
        """End the threads once they have finished what they are at; does not wait for them."""
        with self._lock:
            executor, self._executor = self._executor, None
            if executor is not None and self._pid == os.getpid():
                executor.shutdown(wait=False)
