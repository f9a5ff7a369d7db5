"""`L1Cache`: the entries used lately, in the process's own memory, in front of a store."""

from __future__ import annotations

from dataclasses import replace

from aicache._model import CacheKey, Entry, Selection, StoreSize
from aicache.stores._table import EntryTable

__all__ = ["L1Cache"]


class L1Cache:
    """Answers exact repetitions without I/O; bounded in entries and bytes. Safe to call from any thread.

    It knows nothing of freshness: the caller decides whether an entry may still be served. Entries are kept
    without their vectors, since an exact match needs none and a vector of 384 dimensions weighs more than most
    answers: an entry from L1 must therefore never be written back to a store.

    Args:
        max_entries: entries kept, at least 1.
        max_bytes: sum of their `Entry.weight`, at least 1; a heavier entry is not kept.
        eviction: who leaves when it is full: `lru`, `lfu`, `arc` or `w-tinylfu`; see docs/eviction.md.

    Raises:
        ConfigurationError: at construction, naming the parameter.
    """

    def __init__(self, *, max_entries: int = 10_000, max_bytes: int = 64 * 2**20, eviction: str = "w-tinylfu") -> None:
        self._table = EntryTable(max_entries=max_entries, max_bytes=max_bytes, eviction_name=eviction)
        self._epoch: int | None = None
        self._mark = object()

    @property
    def mark(self) -> object:
        """A token that changes whenever entries are removed on purpose; see `put`."""
        return self._mark

    def get(self, key: CacheKey) -> Entry | None:
        """The entry of exactly this key, or None."""
        return self._table.get(key.digest)

    def put(self, entry: Entry, *, since: object | None = None) -> None:
        """Keep the entry, without its vector, in place of an earlier one with its key.

        `since` is the `mark` from before the entry was read below. If entries were removed in the meantime this one
        may be among them, and it is not kept: else a lookup that overlaps with a `clear` would bring it back.
        """
        if since is not None and since is not self._mark:
            return
        if entry.vector is not None:
            entry = replace(entry, vector=None, space=None)
        self._table.put(entry)
        # Asked again: every removal changes the mark first, so that one of the two sees the other.
        if since is not None and since is not self._mark:
            self._table.remove((entry.key.digest,))

    def touch(self, key: CacheKey, expires: float | None) -> None:
        """Set when the entry expires; nothing happens if it is not here."""
        self._table.touch(key.digest, expires)

    def discard(self, key: CacheKey) -> None:
        """Remove the entry; nothing happens if it is not here."""
        self._mark = object()
        self._table.remove((key.digest,))

    def clear(self, selection: Selection) -> int:
        """Remove all entries of the selection; how many there were. `Selection()` is everything."""
        self._mark = object()
        return self._table.clear(selection)

    def observe(self, epoch: int) -> None:
        """Forget everything unless this is the epoch last seen.

        At the first one too: what was kept before may have been removed below before anybody looked.
        """
        last, self._epoch = self._epoch, epoch
        if last != epoch:
            self.clear(Selection())

    def size(self) -> StoreSize:
        """The number of entries and the sum of their weights."""
        return self._table.size()
