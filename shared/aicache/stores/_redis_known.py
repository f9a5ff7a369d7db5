"""What a Redis store has learned of its server, kept between operations."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from aicache.stores._redis_dialect import Dialect

__all__ = ["Known"]

_REMEMBERED_DEAD: Final = 1_000
_REAPED_AT_ONCE: Final = 16
"""Dead vectors a write takes along: 0.2 ms of the server each."""


@dataclass(slots=True)
class Known:
    """The memory of one store. Every change is a single assignment or a single call of a dict."""

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
