"""Logs of the embedded store: lessons and summaries, read and appended to.

A damaged file may hold any type in any column. What is no lesson is given as the bytes it has or as none: who reads
lessons judges them, and one that is damaged costs a log nothing but itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from aicache.stores.base import LESSONS_KEPT, Lessons

__all__ = ["append", "forget", "keep_summary", "read", "read_summary"]

_TRIMMED_AT_ONCE: Final = 512
"""Lessons that leave together: finding the oldest costs more than removing them."""

_LAST_POSITION: Final = 2**53
"""No log gets as far: what is beyond is damaged."""

_POSITIONS: Final = f"log = ? AND position BETWEEN 1 AND {_LAST_POSITION} AND typeof(position) = 'integer'"
_LAST: Final = f"SELECT position FROM lessons WHERE {_POSITIONS} ORDER BY position DESC LIMIT 1"  # noqa: S608 - constants
_BEHIND: Final = f"SELECT position, lesson FROM lessons WHERE {_POSITIONS} AND position > ? ORDER BY position"  # noqa: S608 - constants


def append(connection: sqlite3.Connection, log: bytes, lessons: Sequence[bytes]) -> int:
    """As `LessonStore.append_lessons`, in the transaction of the connection."""
    before = _end(connection, log)
    total = before + len(lessons)
    connection.executemany(
        "INSERT OR REPLACE INTO lessons (log, position, lesson) VALUES (?, ?, ?)",
        ((log, position, lesson) for position, lesson in enumerate(lessons, before + 1)),
    )
    if before // _TRIMMED_AT_ONCE != total // _TRIMMED_AT_ONCE:
        connection.execute("DELETE FROM lessons WHERE log = ? AND position <= ?", (log, total - LESSONS_KEPT))
    return total


def read(connection: sqlite3.Connection, log: bytes, after: int) -> Lessons:
    """As `LessonStore.lessons`. Where a damaged file has a gap, what is before it counts as gone."""
    first = after + 1
    items: list[bytes] = []
    for position, lesson in connection.execute(_BEHIND, (log, after)):
        if position != first + len(items):
            first, items = int(position), []
        items.append(_bytes(lesson))
    return Lessons(first, tuple(items))


def keep_summary(connection: sqlite3.Connection, log: bytes, position: int, summary: bytes) -> None:
    """As `LessonStore.keep_summary`, in the transaction of the connection."""
    found = read_summary(connection, log)
    if found is None or not position < found[0] <= _end(connection, log):
        connection.execute(
            "INSERT OR REPLACE INTO summaries (log, position, summary) VALUES (?, ?, ?)", (log, position, summary)
        )


def read_summary(connection: sqlite3.Connection, log: bytes) -> tuple[int, bytes] | None:
    """As `LessonStore.summary`; None too where the position is damaged."""
    found = connection.execute("SELECT position, summary FROM summaries WHERE log = ?", (log,)).fetchone()
    if found is None or not isinstance(found[0], int):
        return None
    return found[0], _bytes(found[1])


def forget(connection: sqlite3.Connection, log: bytes) -> None:
    """As `LessonStore.forget_lessons`, in the transaction of the connection."""
    connection.execute("DELETE FROM lessons WHERE log = ?", (log,))
    connection.execute("DELETE FROM summaries WHERE log = ?", (log,))


def _end(connection: sqlite3.Connection, log: bytes) -> int:
    """How many lessons the log has ever had."""
    found = connection.execute(_LAST, (log,)).fetchone()
    return 0 if found is None else int(found[0])


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else b""
