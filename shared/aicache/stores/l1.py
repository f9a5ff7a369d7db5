"""`L1Cache`: the entries used lately, in the process's own memory, in front of a store."""

from __future__ import annotations

import threading
import weakref
from contextlib import suppress
from dataclasses import replace
from typing import Final

from aicache._fork import in_forked_child
from aicache._model import CacheKey, Entry, Selection, StoreSize
from aicache.stores._table import EntryTable

__all__ = ["L1Cache", "L1Circle"]


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


class L1Circle:
    """The L1 of one cache, and those of the others in front of the same store object.

    A store says in its epoch what other processes did and leaves out what was done through itself, so that caches that
    were given one object have to tell each other. None of them keeps another one, or the store, alive.

    Args:
        own: the cache's L1; None where it has none, and yet tells the others.
        store: what they are in front of. One that cannot be weakly referenced is not shared.
    """

    __slots__ = ("_group", "_own")

    def __init__(self, own: L1Cache | None, store: object) -> None:
        self._own = own
        self._group = _GROUPS.join(own, store)

    def forget(self, what: CacheKey | Selection) -> None:
        """`discard` or `clear`, in all of them."""
        if self._own is not None:
            _drop(self._own, what)
        for other in self._group.others(self._own):
            _drop(other, what)

    def replaced(self, key: CacheKey) -> None:
        """The store has another entry of this key now: the others `discard` theirs."""
        for other in self._group.others(self._own):
            other.discard(key)


def _drop(l1: L1Cache, what: CacheKey | Selection) -> None:
    if isinstance(what, Selection):
        l1.clear(what)
    else:
        l1.discard(what)


class _Group:
    """The L1s in front of one store object; it keeps none of them alive."""

    __slots__ = ("_members",)

    def __init__(self) -> None:
        self._members: tuple[weakref.ref[L1Cache], ...] = ()
        """Replaced, never changed, so that it is read without a lock."""

    def add(self, l1: L1Cache) -> None:
        """Not safe to call from two threads at once."""
        alive = [member for member in self._members if member() not in {None, l1}]
        self._members = (*alive, weakref.ref(l1))

    def others(self, own: L1Cache | None) -> list[L1Cache]:
        if own is not None and len(self._members) == 1:
            return []
        return [one for member in self._members if (one := member()) is not None and one is not own]


class _Groups:
    """The group of each store object that lives. By identity: stores may be equal, and need not be hashable."""

    def __init__(self) -> None:
        self._groups: dict[int, tuple[weakref.ref[object], _Group]] = {}
        self._renew_lock()
        in_forked_child(self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def join(self, l1: L1Cache | None, store: object) -> _Group:
        """The group of the store, with this L1 in it."""
        with self._lock:
            group = self._group_of(store)
            if l1 is not None:
                group.add(l1)
            return group

    def _group_of(self, store: object) -> _Group:
        groups, place = self._groups, id(store)
        found = groups.get(place)
        if found is not None and found[0]() is store:
            return found[1]

        def forget(gone: weakref.ref[object]) -> None:
            # Takes no lock, for it may be called in the middle of anything.
            if (found := groups.get(place)) is not None and found[0] is gone:
                del groups[place]

        group = _Group()
        with suppress(TypeError):
            groups[place] = weakref.ref(store, forget), group
        return group


_GROUPS: Final = _Groups()
"""Of the process, as store objects are: two caches that were given the same one know nothing else of each other."""
