"""What a Redis store has learned of its server, kept between operations."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from aicache.stores._redis_dialect import Dialect
from aicache.stores._redis_plan import Refusal, integer, list_of

__all__ = ["Known", "ServerClock"]

_SAME: Final = 1.0
"""Seconds by which clocks may differ and still count as equal: nobody's TTL hangs on less."""
_REMEMBERED_DEAD: Final = 1_000
_REAPED_AT_ONCE: Final = 16
"""Dead vectors a write takes along: 0.2 ms of the server each."""


@dataclass(slots=True)
class ServerClock:
    """By how much the server's clock is ahead of this host's.

    Entries are stamped in the server's time, so that programs on hosts whose clocks are wrong agree about them.
    """

    wall: Callable[[], float] = time.time
    shift: float = 0.0
    """Seconds to add to a time of this host. 0 while the clocks agree, so that times come back as they were written."""

    def note(self, told: object, asked: float) -> None:
        """Learn from a reply to TIME, and when it was asked for: it was given at about the middle of that time.

        The shift changes only by more than a second and more than the round trip: what it is off by at most.
        """
        if isinstance(told, Refusal):
            return
        answered = self.wall()
        # redis-py makes a tuple of it.
        seconds, microseconds = map(integer, list_of(list(told) if isinstance(told, tuple) else told, 2))
        ahead = seconds + microseconds / 1_000_000 - (asked + answered) / 2
        unsure = max(_SAME, abs(answered - asked))
        if abs(ahead - self.shift) > unsure:
            self.shift = ahead if abs(ahead) > unsure else 0.0


@dataclass(slots=True)
class Known:
    """The memory of one store. Every change is a single assignment or a single call of a dict."""

    clock: ServerClock
    dialect: Dialect | None = None
    reason: str | None = None
    epoch: int | None = None
    audit_at: tuple[int, int] = (0, 0)
    _authors: dict[int, str] = field(default_factory=dict)
    _dead: dict[tuple[str, str], None] = field(default_factory=dict)

    def author(self) -> str:
        """The name under which this program's own changes are counted; another one after a fork."""
        return self._authors.get(os.getpid()) or self._authors.setdefault(os.getpid(), uuid.uuid4().hex[:16])

    def author_changed(self) -> bool:
        """Whether the dialect counts changes under the name of the parent of this program."""
        return self.dialect is not None and bool(self.dialect.epochs) and self.author() not in self.dialect.epochs[1]

    def note_dead(self, bucket: str, members: Sequence[str]) -> None:
        """Remember vectors without an entry, up to a bound: a read does not write, the next write drops them."""
        for member in members[: max(0, _REMEMBERED_DEAD - len(self._dead))]:
            self._dead[bucket, member] = None

    def take_dead(self, bucket: str) -> list[str]:
        """Some of the bucket, to be dropped."""
        taken = [place for place in list(self._dead) if place[0] == bucket][:_REAPED_AT_ONCE]
        for place in taken:
            self._dead.pop(place, None)
        return [member for _, member in taken]

    def dead_buckets(self) -> Iterator[str]:
        """The buckets they are in."""
        return iter(dict.fromkeys(bucket for bucket, _ in list(self._dead)))
