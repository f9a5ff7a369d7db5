"""`Logs`: lessons and summaries in the process's own memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Final

from aicache._fork import in_forked_child
from aicache.stores.base import LESSONS_KEPT, Lessons

__all__ = ["Logs"]


@dataclass(frozen=True, slots=True)
class _Log:
    """A log as it is at one moment."""

    total: int = 0
    kept: tuple[bytes, ...] = ()
    summary: tuple[int, bytes] | None = None


_EMPTY: Final = _Log()


class Logs:
    """The logs of one store, each with its last `LESSONS_KEPT` lessons. Safe to call from any thread.

    A log is replaced in one step, never changed: readers take no lock, and a fork finds it before a change or after it.
    Copying 4,096 references at each append takes some 20 us, and appends are few.
    """

    __slots__ = ("__weakref__", "_lock", "_logs")

    def __init__(self) -> None:
        self._logs: dict[bytes, _Log] = {}
        self._renew_lock()
        in_forked_child(self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = Lock()

    def append(self, name: bytes, lessons: Sequence[bytes]) -> int:
        """As `LessonStore.append_lessons`."""
        with self._lock:
            log = self._logs.get(name, _EMPTY)
            if lessons:
                kept = (*log.kept, *lessons)[-LESSONS_KEPT:]
                log = self._logs[name] = replace(log, total=log.total + len(lessons), kept=kept)
            return log.total

    def read(self, name: bytes, after: int) -> Lessons:
        """As `LessonStore.lessons`."""
        log = self._logs.get(name, _EMPTY)
        gone = log.total - len(log.kept)
        if after >= log.total:
            return Lessons(after + 1, ())
        skipped = max(after - gone, 0)
        return Lessons(gone + skipped + 1, log.kept[skipped:])

    def keep_summary(self, name: bytes, position: int, summary: bytes) -> None:
        """As `LessonStore.keep_summary`."""
        with self._lock:
            log = self._logs.get(name, _EMPTY)
            if log.summary is None or not position < log.summary[0] <= log.total:
                self._logs[name] = replace(log, summary=(position, summary))

    def summary(self, name: bytes) -> tuple[int, bytes] | None:
        """As `LessonStore.summary`."""
        return self._logs.get(name, _EMPTY).summary

    def forget(self, name: bytes) -> None:
        """As `LessonStore.forget_lessons`."""
        with self._lock:
            self._logs.pop(name, None)

    def clear(self) -> None:
        """Forget them all."""
        with self._lock:
            self._logs.clear()
