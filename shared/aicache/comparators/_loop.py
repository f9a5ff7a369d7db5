"""An event loop for functions of the user's that must be awaited."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable
from typing import Any

__all__ = ["PrivateLoop", "loop_is_running"]


class PrivateLoop:
    """One event loop, made at first use, run by one thread at a time; a forked child makes its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inherited: list[asyncio.AbstractEventLoop] = []
        self._pid = os.getpid()

    def run(self, waiting: Awaitable[Any], timeout: float | None) -> Any:
        """Its result.

        Raises:
            TimeoutError: it took longer; it is cancelled.
        """
        if self._pid != os.getpid():
            # To close what the parent still waits on would close it for the parent too: it is kept.
            self._inherited += [self._loop] if self._loop is not None else []
            self._lock, self._loop, self._pid = threading.Lock(), None, os.getpid()
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
            return self._loop.run_until_complete(_within(timeout, waiting))

    def close(self) -> None:
        """Close the loop unless it runs; whoever closes it may have a running one of his own."""
        if self._pid == os.getpid() and self._lock.acquire(blocking=False):
            try:
                if self._loop is not None:
                    self._loop.close()
                    self._loop = None
            finally:
                self._lock.release()


async def _within(seconds: float | None, waiting: Awaitable[Any]) -> Any:
    async with asyncio.timeout(seconds):
        return await waiting


def loop_is_running() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
