"""The store of a replay: memory, with a stop-watch, and of pairs only what the file tells."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from aicache._evaluation._streams import Stream
from aicache._evaluation._world import Given
from aicache._model import Candidate, Search
from aicache.stores.memory import MemoryStore

__all__ = ["ReplayStore"]

_AROUND = 1_000
"""Neighbours looked at to find `k` with a known relation. No group of questions is larger, in files of pairs."""


class ReplayStore(MemoryStore):
    """Holds all questions of a stream, and notes when a search was done.

    Where a file tells the relation of some pairs only, the others are left out of `nearest`: nobody could say whether
    they answer the question.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__(max_entries=len(stream.texts) + 1, max_bytes=2**40)
        self._stream = stream
        self._asking = 0
        self._searched: float | None = None

    def begin(self, question: int) -> None:
        """This question is asked now."""
        self._asking, self._searched = question, None

    @property
    def searched(self) -> float | None:
        """Time when the search for it was done; None if there was none."""
        return self._searched

    def nearest(self, search: Search) -> Sequence[Candidate]:
        """As the store of which it is one."""
        found = self._known(search) if self._stream.different is not None else super().nearest(search)
        self._searched = time.perf_counter()
        return found

    def _known(self, search: Search) -> Sequence[Candidate]:
        name = self._stream.classes[self._asking]
        around = super().nearest(replace(search, k=_AROUND))
        known = [one for one in around if self._stream.same(name, Given.of(one.entry.answer).name) is not None]
        return known[: search.k]
