"""The store port: what a tier below L1 must do. `aicache.testing.StoreContract` is its specification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, runtime_checkable

from aicache._errors import UnreadableEntryError
from aicache._model import CacheKey, Candidate, Entry, Listed, Search, Selection, Space, StoreSize, Vector

__all__ = [
    "LESSONS_KEPT",
    "AsyncBatchStore",
    "AsyncBulkStore",
    "AsyncStore",
    "BatchStore",
    "BulkStore",
    "Fetched",
    "LessonStore",
    "Lessons",
    "Nearby",
    "Store",
]

LESSONS_KEPT: Final = 4_096
"""Lessons of a log that a store keeps at the least: a fit uses the last 4,000."""

Fetched: TypeAlias = Entry | UnreadableEntryError | None
"""One of the results of `fetch_many`: an entry that cannot be read does not cost the others."""

Nearby: TypeAlias = Sequence[Candidate] | UnreadableEntryError
"""One of the results of `nearest_many`."""


@runtime_checkable
class Store(Protocol):
    """Keeps entries and finds the nearest ones. Every method is safe to call from any thread.

    A store knows nothing of freshness: it returns expired entries until they are removed, and the caller
    passes the time in. Errors: `StoreError` (and `UnreadableEntryError` from `fetch` for damaged bytes);
    any other exception counts as a failed store too. `UnwritableEntryError` says that trying again is of no use.

    A store may also have `bounded = False`: its calls may take for ever, so that the driver carries out those
    with a deadline in a thread. Without it the store is taken at its word: memory, a file, or timeouts of its
    own (`aicache._deadline.time_left` says how long it has).

    One whose async half cannot be used has `native = False`. Two more a store may have: `seen_epoch`, the epoch if the
    last reply of `fetch` or `nearest` brought it along, else None, so that a tier above hears of changes without
    asking; and `facts`, texts about itself for `stats`.
    """

    @property
    def name(self) -> str:
        """The tier's name in outcomes and statistics: `memory`, `sqlite`, ..."""

    @property
    def blocking(self) -> bool:
        """True when `fetch` and `write` wait for a disk or a network: async callers then use a thread."""

    def fetch(self, key: CacheKey) -> Entry | None:
        """The entry of exactly this key, or None."""

    def nearest(self, search: Search) -> Sequence[Candidate]:
        """At most `k` entries of the partition and space, nearest first, scores as true cosines in [-1, 1].

        An entry whose vector is in another space or dimension is never returned; a damaged one is left out, and so is
        one that was blocked for the asker. Each says how many entries of its cluster there are. Those that score below
        `floor` may be left out too; the nearest is there all the same, where finding it costs nothing.
        `WrongKeyError` where all there are is encrypted with a foreign key.
        """

    def write(self, entry: Entry) -> None:
        """Store the entry in place of any earlier one with its key; readable when this returns."""

    def touch(self, key: CacheKey, expires: float | None) -> None:
        """Set when the entry expires; nothing happens if it is gone."""

    def remove(self, keys: Sequence[CacheKey], *, dry_run: bool = False) -> int:
        """Remove these entries with their vectors; how many there were. With `dry_run` they stay.

        Of a key's partition only the first byte of its id may be given (`CacheKey.of_id`).
        """

    def clear(self, selection: Selection, *, dry_run: bool = False) -> int:
        """Remove all entries of the selection; how many there were. `Selection()` is everything.

        With `dry_run` they stay, and nobody hears of a change.
        """

    def similar(self, selection: Selection, space: Space, vector: Vector, min_score: float) -> Sequence[Listed]:
        """Every entry of the selection and space, of whatever partition, whose cosine is at least `min_score`.

        Nearest first; expired entries too. Looks at all entries of the selection: for people, not for lookups.
        """

    def block(self, asker: CacheKey, entry: CacheKey) -> None:
        """Never again return this entry, nor another one written under its key, from `nearest` for this asker.

        Removing and clearing entries does not undo it. Of a key's partition only the first byte of its id may be given.
        """

    def sweep(self, now: float, limit: int) -> int:
        """Remove at most `limit` entries with `expires <= now`; how many were removed."""

    def size(self) -> StoreSize:
        """What the store holds now."""

    def epoch(self) -> int:
        """A number that differs from the last one seen when ANOTHER process has removed or replaced entries.

        A tier above forgets what it holds then. Cheap: called about once a second. A store that no other
        process can reach returns 0 always.
        """

    def close(self) -> None:
        """Release files, connections and threads; a second call does nothing."""


@runtime_checkable
class AsyncStore(Protocol):
    """A store that async callers use natively, without a thread; each method does what its sync twin does.

    A networked store has both halves and shares command building and reply parsing between them.
    """

    async def afetch(self, key: CacheKey) -> Entry | None:
        """As `Store.fetch`."""

    async def anearest(self, search: Search) -> Sequence[Candidate]:
        """As `Store.nearest`."""

    async def awrite(self, entry: Entry) -> None:
        """As `Store.write`."""

    async def atouch(self, key: CacheKey, expires: float | None) -> None:
        """As `Store.touch`."""

    async def aremove(self, keys: Sequence[CacheKey], *, dry_run: bool = False) -> int:
        """As `Store.remove`."""

    async def aclear(self, selection: Selection, *, dry_run: bool = False) -> int:
        """As `Store.clear`."""

    async def asimilar(self, selection: Selection, space: Space, vector: Vector, min_score: float) -> Sequence[Listed]:
        """As `Store.similar`."""

    async def ablock(self, asker: CacheKey, entry: CacheKey) -> None:
        """As `Store.block`."""

    async def asweep(self, now: float, limit: int) -> int:
        """As `Store.sweep`."""

    async def aepoch(self) -> int:
        """As `Store.epoch`."""

    async def aclose(self) -> None:
        """As `Store.close`."""


@runtime_checkable
class BatchStore(Protocol):
    """A store that answers many reads in one round trip."""

    def fetch_many(self, keys: Sequence[CacheKey]) -> Sequence[Fetched]:
        """As `Store.fetch` of each, in the same order."""

    def nearest_many(self, searches: Sequence[Search]) -> Sequence[Nearby]:
        """As `Store.nearest` of each, in the same order."""


@runtime_checkable
class AsyncBatchStore(Protocol):
    """The same for async callers."""

    async def afetch_many(self, keys: Sequence[CacheKey]) -> Sequence[Fetched]:
        """As `BatchStore.fetch_many`."""

    async def anearest_many(self, searches: Sequence[Search]) -> Sequence[Nearby]:
        """As `BatchStore.nearest_many`."""


@runtime_checkable
class BulkStore(Protocol):
    """A store that writes many entries at once, and lists what it has."""

    def write_many(self, entries: Sequence[Entry]) -> None:
        """As `Store.write` of each, in one round trip or one transaction. One that fails may leave others written."""

    def entries(self, selection: Selection) -> Sequence[Entry]:
        """Every entry of the selection, in no order, expired ones too; those that cannot be read are left out.

        Looks at all that the selection may have: not for a lookup.
        """


@runtime_checkable
class AsyncBulkStore(Protocol):
    """The same for async callers."""

    async def awrite_many(self, entries: Sequence[Entry]) -> None:
        """As `BulkStore.write_many`."""

    async def aentries(self, selection: Selection) -> Sequence[Entry]:
        """As `BulkStore.entries`."""


@dataclass(frozen=True, slots=True)
class Lessons:
    """Part of a log, in its order."""

    first: int
    """Position of the first of them: 1 for the first ever appended. Those before it that were asked for are gone."""
    items: tuple[bytes, ...]


@runtime_checkable
class LessonStore(Protocol):
    """A store that keeps what a learned matcher learns, for all processes. Blocking only: no lookup asks for it.

    A log is named by 16 bytes and appended to atomically: no lesson of any process is lost or counted twice. `clear`
    and `sweep` leave logs alone. Errors are those of `Store`.
    """

    def append_lessons(self, log: bytes, lessons: Sequence[bytes]) -> int:
        """Append them, in one step; how many the log has ever had, after it. The last `LESSONS_KEPT` are kept."""

    def lessons(self, log: bytes, after: int) -> Lessons:
        """Those behind position `after`, as far as they are still there; `first` is `after + 1` if there are none."""

    def keep_summary(self, log: bytes, position: int, summary: bytes) -> None:
        """Keep a summary of the log up to a position, unless there is one of a higher position the log has reached.

        One beyond the end is of a log that was lost, and goes.
        """

    def summary(self, log: bytes) -> tuple[int, bytes] | None:
        """The position and the summary kept last, or None."""

    def forget_lessons(self, log: bytes) -> None:
        """Remove the log and its summary; positions begin anew."""

    def join(self, key: CacheKey, cluster: bytes) -> None:
        """Make an entry one of the cluster; nothing happens if the entry is gone. No other process need hear of it."""
