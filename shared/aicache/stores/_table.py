"""`EntryTable`: entries by digest, bounded in number and bytes. L1 and the memory store are built on it."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from threading import Lock
from typing import Final, TypeAlias

from aicache._errors import ConfigurationError
from aicache._eviction import Eviction, eviction
from aicache._fork import in_forked_child
from aicache._model import Entry, Partition, Selection, StoreSize

__all__ = ["EntryTable"]

_Group: TypeAlias = tuple[bytes, bytes, bytes, bytes]
"""Namespace, tenant, model, model name."""

_BATCH: Final = 64
"""Hits noted before a reader passes them to the policy: about 40 us of work, done by one reader in 64."""
_BACKLOG: Final = 1024
"""Hits noted at most while the lock is taken; older ones are forgotten, which costs the policy a little insight."""


class EntryTable:
    """Entries by the digest of their key, at most `max_entries` and `max_bytes` (sum of `Entry.weight`).

    Safe to call from any thread. `get` takes no lock: it notes the hit, and the policy learns of it in batches,
    always before it decides anything, so that in one thread the result is as if it had learned at once.

    `on_removed` is called under the lock for every entry that leaves: evicted, replaced, removed, swept or cleared,
    and for one that the policy turns away in its own `put`. It must not raise nor call the table. `touch` and
    `join` replace the object of an entry; that is not leaving.

    A forked child keeps the entries, unless a thread of its parent was in the middle of a change: then it begins with
    an empty table, and `on_removed` is not called.

    Raises:
        ConfigurationError: at construction, naming `max_entries`, `max_bytes` or `eviction`.
    """

    def __init__(
        self,
        *,
        max_entries: int,
        max_bytes: int,
        eviction_name: str,
        on_removed: Callable[[Entry], None] | None = None,
    ) -> None:
        self._max_entries = _positive("max_entries", max_entries)
        self._max_bytes = _positive("max_bytes", max_bytes)
        self._eviction_name = eviction_name
        self._on_removed = on_removed
        self.restart()
        in_forked_child(self._recover)

    def restart(self) -> None:
        """Begin with an empty table, whoever holds the lock; `on_removed` is not called."""
        self._lock = Lock()
        self._policy: Eviction[bytes] = eviction(self._eviction_name, self._max_entries)
        self._entries: dict[bytes, Entry] = {}
        self._bytes = 0
        self._hits: deque[bytes] = deque(maxlen=_BACKLOG)
        self._index = _SelectionIndex()
        self._expiries = _Expiries(self._entries)
        self._clusters = _Clusters()

    def _recover(self) -> None:
        """In a forked child: nobody is left who could release the lock or finish the change."""
        # A fresh lock in any case: a thread that had waited for this one may have got it and not yet marked it so.
        torn, self._lock = self._lock.locked(), Lock()
        if torn:
            self.restart()

    def get(self, digest: bytes) -> Entry | None:
        """The entry of this digest, or None; counts as a use."""
        entry = self._entries.get(digest)
        if entry is not None:
            hits = self._hits
            hits.append(digest)
            if len(hits) >= _BATCH and self._lock.acquire(blocking=False):
                try:
                    self._learn()
                finally:
                    self._lock.release()
        return entry

    def peek(self, digest: bytes) -> Entry | None:
        """The entry of this digest, or None; does not count as a use."""
        return self._entries.get(digest)

    def put(self, entry: Entry) -> bool:
        """Hold the entry in place of an earlier one with its digest; whether it is held now.

        An entry heavier than `max_bytes` is refused and displaces only its own predecessor, whose answer is outdated.
        """
        digest, weight = entry.key.digest, entry.weight
        with self._lock:
            self._learn()
            old = self._entries.get(digest)
            if weight > self._max_bytes:
                if old is not None:
                    self._remove(digest)
                return False
            if old is not None:
                self._let_go(old)
            self._entries[digest] = entry  # in one step: a reader never finds a gap between old and new
            self._bytes += weight
            self._index.add(entry)
            self._clusters.add(entry.cluster)
            self._expiries.add(digest, entry.expires)
            for victim in self._policy.admit(digest):
                self._drop(victim)
            self._shrink()
            return digest in self._entries

    def touch(self, digest: bytes, expires: float | None) -> None:
        """Set when the entry expires; nothing happens if it is gone. Does not count as a use."""
        with self._lock:
            entry = self._entries.get(digest)
            if entry is not None and entry.expires != expires:
                self._entries[digest] = replace(entry, expires=expires)
                self._expiries.add(digest, expires)

    def join(self, digest: bytes, cluster: bytes) -> None:
        """Make the entry one of the cluster; nothing happens if it is gone. Does not count as a use."""
        with self._lock:
            entry = self._entries.get(digest)
            if entry is not None and entry.cluster != cluster:
                self._entries[digest] = replace(entry, cluster=cluster)
                self._clusters.remove(entry.cluster)
                self._clusters.add(cluster)

    def cluster_size(self, cluster: bytes | None) -> int:
        """How many entries are of the cluster; 1 if it is None. Takes no lock."""
        return self._clusters.size(cluster)

    def remove(self, digests: Iterable[bytes]) -> int:
        """Remove the entries of these digests; how many there were."""
        with self._lock:
            return self._remove_all(digests)

    def count(self, digests: Iterable[bytes]) -> int:
        """How many entries `remove` would take."""
        return sum(digest in self._entries for digest in set(digests))

    def select(self, selection: Selection) -> list[Entry]:
        """The entries of the selection. Takes time only for those that agree in all but the time of writing."""
        with self._lock:
            return self._select(selection)

    def clear(self, selection: Selection) -> int:
        """Remove the entries of the selection; how many there were. Takes time as `select` does."""
        with self._lock:
            if selection != Selection():
                return self._remove_all([entry.key.digest for entry in self._select(selection)])
            removed = list(self._entries.values())
            self._entries.clear()
            self._bytes = 0
            self._hits.clear()
            self._index = _SelectionIndex()
            self._expiries = _Expiries(self._entries)
            self._clusters = _Clusters()
            self._policy.clear()
            if self._on_removed is not None:
                for entry in removed:
                    self._on_removed(entry)
            return len(removed)

    def sweep(self, now: float, limit: int) -> int:
        """Remove at most `limit` entries with `expires <= now`, those that expired first; how many."""
        with self._lock:
            removed = 0
            while removed < limit and (digest := self._expiries.pop(now)) is not None:
                self._remove(digest)
                removed += 1
            return removed

    def size(self) -> StoreSize:
        """The number of entries and the sum of their weights."""
        with self._lock:
            return StoreSize(len(self._entries), self._bytes)

    # ------------------------------------------------------------------------------- under the lock

    def _learn(self) -> None:
        """Tell the policy of the hits noted since the last time."""
        hits, touch = self._hits, self._policy.touch
        # As many as are there now: readers may append meanwhile, and nobody else takes.
        for _ in range(len(hits)):
            touch(hits.popleft())

    def _select(self, selection: Selection) -> list[Entry]:
        before = selection.written_before
        entries = (self._entries[digest] for digest in self._index.select(selection))
        return [entry for entry in entries if before is None or entry.created < before]

    def _shrink(self) -> None:
        while self._bytes > self._max_bytes:
            victim = self._policy.evict()
            assert victim is not None, "the policy holds the keys of all entries"
            self._drop(victim)

    def _remove_all(self, digests: Iterable[bytes]) -> int:
        removed = 0
        for digest in digests:
            if digest in self._entries:
                self._remove(digest)
                removed += 1
        return removed

    def _remove(self, digest: bytes) -> None:
        self._policy.discard(digest)
        self._drop(digest)

    def _drop(self, digest: bytes) -> None:
        """Take out an entry whose key the policy has given up."""
        self._let_go(self._entries.pop(digest))

    def _let_go(self, entry: Entry) -> None:
        """Settle the accounts of an entry that leaves."""
        self._bytes -= entry.weight
        self._index.remove(entry)
        self._clusters.remove(entry.cluster)
        if self._on_removed is not None:
            self._on_removed(entry)


class _SelectionIndex:
    """The digests of a selection without looking at all entries.

    Entries are grouped by (namespace, tenant, model, model name), of which there are few, and not by partition, which
    may be different for every conversation. Tags have an index of their own, paid for by tagged entries only. When they
    were written is not indexed: who asks for it looks at the entries.
    """

    __slots__ = ("_groups", "_tagged")

    def __init__(self) -> None:
        self._groups: dict[_Group, dict[bytes, None]] = {}
        self._tagged: dict[str, dict[bytes, _Group]] = {}

    def add(self, entry: Entry) -> None:
        digest, group = entry.key.digest, _group(entry.key.partition)
        # Dicts for sets: they keep the order of insertion, so that a clear removes in the same order every time.
        self._groups.setdefault(group, {})[digest] = None
        for tag in entry.tags:
            self._tagged.setdefault(tag, {})[digest] = group

    def remove(self, entry: Entry) -> None:
        digest, group = entry.key.digest, _group(entry.key.partition)
        members = self._groups[group]
        del members[digest]
        if not members:
            del self._groups[group]
        for tag in set(entry.tags):
            tagged = self._tagged[tag]
            del tagged[digest]
            if not tagged:
                del self._tagged[tag]

    def select(self, selection: Selection) -> list[bytes]:
        """The digests of the selection, whenever written, as a list that later changes do not touch."""
        wanted = (selection.namespace, selection.tenant, selection.model, selection.model_name)
        if selection.tags:
            rarest, *others = sorted((self._tagged.get(tag, {}) for tag in selection.tags), key=len)
            return [
                digest
                for digest, group in rarest.items()
                if _agrees(group, wanted) and all(digest in tagged for tagged in others)
            ]
        return [digest for group, members in self._groups.items() if _agrees(group, wanted) for digest in members]


def _group(partition: Partition) -> _Group:
    return partition.namespace, partition.tenant, partition.model, partition.model_name


def _agrees(group: _Group, wanted: tuple[bytes | None, ...]) -> bool:
    return all(want is None or want == have for have, want in zip(group, wanted, strict=True))


class _Clusters:
    """How many entries each cluster has. Entries of none cost nothing."""

    __slots__ = ("_sizes",)

    def __init__(self) -> None:
        self._sizes: dict[bytes, int] = {}

    def size(self, cluster: bytes | None) -> int:
        # At least 1: a reader without the lock may hold an entry that has just left.
        return 1 if cluster is None else self._sizes.get(cluster, 1)

    def add(self, cluster: bytes | None) -> None:
        if cluster is not None:
            self._sizes[cluster] = self._sizes.get(cluster, 0) + 1

    def remove(self, cluster: bytes | None) -> None:
        if cluster is None:
            return
        left = self._sizes[cluster] - 1
        if left:
            self._sizes[cluster] = left
        else:
            del self._sizes[cluster]


class _Expiries:
    """When entries expire, earliest first: a heap whose items may be out of date.

    Invariant: every entry that expires has an item at its time or earlier. A longer life therefore needs no new
    item (sliding expiry would add one a hit); the item is put back at the right time when it comes up.
    """

    __slots__ = ("_due", "_entries", "_heap")

    def __init__(self, entries: dict[bytes, Entry]) -> None:
        self._entries = entries
        self._heap: list[tuple[float, bytes]] = []
        self._due: dict[bytes, float] = {}  # the earliest item of each digest

    def add(self, digest: bytes, expires: float | None) -> None:
        """Note when the entry expires, after it was stored."""
        if expires is None or self._due.get(digest, float("inf")) <= expires:
            return
        self._due[digest] = expires
        heapq.heappush(self._heap, (expires, digest))
        if len(self._heap) > 2 * len(self._entries) + _BATCH:
            self._rebuild()

    def pop(self, now: float) -> bytes | None:
        """The digest of an entry that has expired by now, or None."""
        while self._heap and self._heap[0][0] <= now:
            when, digest = heapq.heappop(self._heap)
            if self._due.get(digest) != when:
                continue  # a shorter life was set later; its own item is or was in the heap
            del self._due[digest]
            entry = self._entries.get(digest)
            if entry is None or entry.expires is None:
                continue
            if entry.expires <= now:
                return digest
            self.add(digest, entry.expires)
        return None

    def _rebuild(self) -> None:
        """Drop the items of entries that are gone; they outnumber the rest."""
        self._due = {digest: e.expires for digest, e in self._entries.items() if e.expires is not None}
        self._heap = [(expires, digest) for digest, expires in self._due.items()]
        heapq.heapify(self._heap)


def _positive(parameter: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(parameter, f"give a whole number of at least 1; got {value!r}")
    return value
