"""What is done in the background: by one thread, whenever it is woken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TypeAlias

from aicache._errors import CONTROL
from aicache._fork import in_forked_child
from aicache._workers import Workers

__all__ = ["Background", "Errand"]

Background: TypeAlias = Literal["thread", "inline"]
"""Where lessons are learned; `inline`: by the caller, so that a replay can be repeated."""


class Errand:
    """Something that one thread does in the background whenever it is woken, and again if it was woken meanwhile."""

    def __init__(
        self, act: Callable[[], None], report: Callable[[BaseException], None], background: Background
    ) -> None:
        self.ended = False
        self._act = act
        self._report = report
        self._inline = background == "inline"
        self._workers = Workers(1)
        self._begin_anew()
        in_forked_child(self._begin_anew)

    def _begin_anew(self) -> None:
        """At the start and in a forked child: no thread is at work."""
        self._lock = threading.Lock()
        self._scheduled = False
        self._again = False

    def wake(self) -> None:
        """Have it done, unless it has ended; with `inline` by the caller."""
        with self._lock:
            if self.ended:
                return
            if self._scheduled:
                self._again = True
                return
            self._scheduled = True
        if self._inline:
            self._work()
            return
        try:
            self._workers.executor().submit(self._work)
        except RuntimeError:  # No thread to be had, or the interpreter ends: another time, or never.
            self._scheduled = False

    def _work(self) -> None:
        while True:
            self._again = False
            try:
                self._act()
            except CONTROL:
                self._scheduled = False
                raise
            except BaseException as error:  # noqa: BLE001 - it goes on another time; nobody waits for it
                self._report(error)
            with self._lock:
                if self.ended or not self._again:
                    self._scheduled = False
                    return

    def settle(self, seconds: float) -> None:
        """Have it done, and wait for it, but no longer than this."""
        self.wake()
        if self._scheduled and not (self._inline or self.ended):
            # One thread: what comes after it, comes last.
            with suppress(TimeoutError, RuntimeError):
                self._workers.executor().submit(_nothing).result(seconds)

    def end(self) -> None:
        """Not again; what is under way comes to its end."""
        with self._lock:
            self.ended = True
        self._workers.close()


def _nothing() -> None:
    return None
