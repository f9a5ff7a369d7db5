"""Plain bytes beside the answers: vectors, ingested nodes, whatever is dear to make and can be made again.

A blob is an entry without vector and without question, on the same store, driver, breaker and deadlines as the answers.
It differs in what is promised: a blob that could not be written is dropped and not kept for later, and reads of many
leave L1 alone, so that an ingestion does not wash the answers out of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeVar

from aicache._clock import Clock
from aicache._driver import Ports, run, run_async
from aicache._errors import CONTROL, ConfigurationError, StoreError
from aicache._fork import in_forked_child
from aicache._freshness import is_expired, life_of
from aicache._key import SCHEMA, namespace_hash, tenant_hash
from aicache._model import Answer, CacheKey, Entry, Partition, Selection
from aicache._plans import sweep
from aicache._policy import CachePolicy
from aicache._reporting import Reporter
from aicache._scopes import current_scope
from aicache._stats import BlobCounts
from aicache._steps import (
    CheckEpoch,
    Clear,
    Fetch,
    Forget,
    Mark,
    Plan,
    Promote,
    ReadAll,
    Recall,
    Remove,
    StepFailed,
    Together,
    WriteMany,
)
from aicache._tenancy import NoTenantError, Tenant, current_tenant
from aicache._upkeep import Chore

__all__ = ["BlobSetup", "Blobs"]

R = TypeVar("R")

AT_ONCE: Final = 256
"""Blobs in one round trip, at the most."""
BYTES_AT_ONCE: Final = 2**20
"""Their bytes, when they are written, unless a single one has more: a tenth of a second at 100 Mbit/s."""

_PARTITION: Final = f"{SCHEMA} blobs\0".encode()
_COLLECTION: Final = f"{SCHEMA} blob collection\0".encode()
_BLOB: Final = f"{SCHEMA} blob\0".encode()
_GROUP: Final = 16

_NAMED: Final = "="
"""Stands before the name in the place of an entry's question, so that an empty name is one too."""

_UNSAID: Final = b""
"""The digest of an answer says which answers are the same in other words; no blob is."""


@dataclass(frozen=True, slots=True)
class BlobSetup:
    """What the blobs share with the cache that they stand beside."""

    ports: Ports
    policy: CachePolicy
    namespace: str
    tenant: Tenant
    clock: Clock
    reporter: Reporter
    lookup_seconds: float | None
    update_seconds: float | None
    epoch_chore: Chore
    sweep_chore: Chore


class Blobs:
    """Bytes by name, in collections. Sync and async (`aget_many`, ...); safe to use from any thread and event loop.

    Reads and writes never raise: what goes wrong is counted, said once, and a blob that is not there. Removing and
    listing raise `StoreError`, for somebody relies on it.

    Args:
        kind: what the blobs are; kinds never meet.
        setup: the cache's own parts.
    """

    def __init__(self, kind: str, setup: BlobSetup) -> None:
        self._kind = kind
        self._setup = setup
        self._ports = setup.ports
        self._has_l1 = setup.ports.l1 is not None
        self._counts = BlobCounts()
        self._renew_lock()
        in_forked_child(self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    @property
    def counts(self) -> BlobCounts:
        """The counters now."""
        return self._counts

    def reset_counts(self) -> None:
        """Count from zero again."""
        with self._lock:
            self._counts = BlobCounts()

    def warn(self, text: str) -> None:
        """Say it in the log, the first time."""
        self._setup.reporter.warn(text)

    def drop(self, count: int) -> None:
        """Count blobs that the caller could not make bytes of."""
        self._count(dropped=count)

    # ------------------------------------------------------------------------------------------- reading

    def get(self, collection: str, name: str) -> bytes | None:
        """The blob, from L1 if it is there. For what is asked for again and again: a query's vector."""
        return run(self._get(collection, name), self._ports, self._setup.lookup_seconds)

    async def aget(self, collection: str, name: str) -> bytes | None:
        """As `get`, without blocking the event loop."""
        return await run_async(self._get(collection, name), self._ports, self._setup.lookup_seconds)

    def get_many(self, collection: str, names: Sequence[str], *, at_once: int = AT_ONCE) -> list[bytes | None]:
        """The blobs of these names, in their order, `at_once` in a round trip; leaves L1 alone.

        Each round trip may take as long as a lookup.
        """
        found: list[bytes | None] = []
        for some in _slices(names, at_once):
            found += run(self._get_many(collection, some), self._ports, self._setup.lookup_seconds)
        return found

    async def aget_many(self, collection: str, names: Sequence[str], *, at_once: int = AT_ONCE) -> list[bytes | None]:
        """As `get_many`, without blocking the event loop."""
        found: list[bytes | None] = []
        for some in _slices(names, at_once):
            found += await run_async(self._get_many(collection, some), self._ports, self._setup.lookup_seconds)
        return found

    def items(self, collection: str) -> list[tuple[str, bytes]]:
        """All blobs of a collection that keep their names, in no order.

        Raises:
            StoreError: they could not be listed.
        """
        return _done(run(self._items(collection), self._ports), "the blobs could not be listed")

    async def aitems(self, collection: str) -> list[tuple[str, bytes]]:
        """As `items`, without blocking the event loop."""
        return _done(await run_async(self._items(collection), self._ports), "the blobs could not be listed")

    # ------------------------------------------------------------------------------------------- writing

    def put(self, collection: str, name: str, blob: bytes, *, ttl: float | None = None) -> int:
        """Keep one blob, in L1 too; 1 if the store has it."""
        pairs = ((name, blob),)
        return run(self._put(collection, pairs, ttl, in_l1=True), self._ports, self._setup.update_seconds)

    async def aput(self, collection: str, name: str, blob: bytes, *, ttl: float | None = None) -> int:
        """As `put`, without blocking the event loop."""
        pairs = ((name, blob),)
        return await run_async(self._put(collection, pairs, ttl, in_l1=True), self._ports, self._setup.update_seconds)

    def put_many(
        self, collection: str, pairs: Sequence[tuple[str, bytes]], *, ttl: float | None = None, named: bool = False
    ) -> int:
        """Keep blobs in place of earlier ones of their names; how many were written. What is not is dropped.

        Each round trip may take as long as an update.

        Args:
            collection: where.
            pairs: names and blobs.
            ttl: seconds they are there for; None for no limit. The policy's own is for answers.
            named: keep the names too, readable in the store, so that `items` can list them.
        """
        plans = (self._put(collection, some, ttl, named=named) for some in _loads(pairs))
        return sum(run(plan, self._ports, self._setup.update_seconds) for plan in plans)

    async def aput_many(
        self, collection: str, pairs: Sequence[tuple[str, bytes]], *, ttl: float | None = None, named: bool = False
    ) -> int:
        """As `put_many`, without blocking the event loop."""
        written = 0
        for some in _loads(pairs):
            plan = self._put(collection, some, ttl, named=named)
            written += await run_async(plan, self._ports, self._setup.update_seconds)
        return written

    # ------------------------------------------------------------------------------------------ removing

    def remove_many(self, collection: str, names: Sequence[str]) -> int:
        """Remove the blobs of these names; how many there were.

        Raises:
            StoreError: the store could not be reached.
            ConfigurationError: whose blobs are meant is not known, for the tenant callable did not say.
        """
        plans = (self._remove(collection, some) for some in _slices(names, AT_ONCE))
        return sum(_done(run(plan, self._ports), "blobs could not be removed") for plan in plans)

    async def aremove_many(self, collection: str, names: Sequence[str]) -> int:
        """As `remove_many`, without blocking the event loop."""
        removed = 0
        for some in _slices(names, AT_ONCE):
            plan = self._remove(collection, some)
            removed += _done(await run_async(plan, self._ports), "blobs could not be removed")
        return removed

    def clear(self, collection: str) -> int:
        """Remove all blobs of a collection; how many there were.

        Raises:
            StoreError: the store could not be reached.
        """
        return _done(run(self._clear(collection), self._ports), "blobs could not be removed")

    async def aclear(self, collection: str) -> int:
        """As `clear`, without blocking the event loop."""
        return _done(await run_async(self._clear(collection), self._ports), "blobs could not be removed")

    # --------------------------------------------------------------------------------------------- plans

    def _get(self, collection: str, name: str) -> Plan[bytes | None]:
        nothing: list[bytes | None] = [None]
        found = yield from self._contained(lambda: self._recall(collection, name), nothing)
        self._count_read(found)
        return found[0]

    def _recall(self, collection: str, name: str) -> Plan[list[bytes | None]]:
        if _unread():
            return [None]
        key, now = self._shelf(collection).key(name), self._setup.clock.wall()
        if not self._has_l1:
            return [_body((yield from Fetch(key)), now)]
        if self._setup.epoch_chore.due(self._setup.clock.monotonic()):
            yield from _tolerate(CheckEpoch())
        entry = yield from Recall(key)
        if entry is not None:
            if not is_expired(entry, now):
                return [entry.answer.body]
            yield from Forget(key)
        mark = yield from Mark()
        entry = yield from Fetch(key)
        body = _body(entry, now)
        if entry is not None and body is not None:
            yield from Promote(entry, mark)
        return [body]

    def _get_many(self, collection: str, names: Sequence[str]) -> Plan[list[bytes | None]]:
        nothing: list[bytes | None] = [None] * len(names)
        found = yield from self._contained(lambda: self._fetch_many(collection, names), nothing)
        self._count_read(found)
        return found

    def _fetch_many(self, collection: str, names: Sequence[str]) -> Plan[list[bytes | None]]:
        if _unread():
            return [None] * len(names)
        shelf, now = self._shelf(collection), self._setup.clock.wall()
        replies = yield from Together(tuple(Fetch(shelf.key(name)) for name in names))
        return [_body(reply, now) for reply in replies]

    def _put(
        self,
        collection: str,
        pairs: Sequence[tuple[str, bytes]],
        ttl: float | None,
        *,
        named: bool = False,
        in_l1: bool = False,
    ) -> Plan[int]:
        written = yield from self._contained(lambda: self._write(collection, pairs, ttl, named, in_l1), 0)
        self._count(stored=written, dropped=len(pairs) - written)
        return written

    def _write(
        self,
        collection: str,
        pairs: Sequence[tuple[str, bytes]],
        ttl: float | None,
        named: bool,  # noqa: FBT001 - only `_put` calls it
        in_l1: bool,  # noqa: FBT001
    ) -> Plan[int]:
        if current_scope().bypass:
            return 0
        shelf, now = self._shelf(collection), self._setup.clock.wall()
        jitter = self._setup.policy.ttl_jitter
        entries = tuple(shelf.entry(name, blob, now, ttl, jitter, named=named) for name, blob in pairs)
        written = yield from _write_many(entries)
        if in_l1 and self._has_l1:
            # Behind the write, which takes it out of L1; and whatever became of it, for the bytes are right.
            for entry in entries:
                yield from Promote(entry)
        if written and self._setup.sweep_chore.due(self._setup.clock.monotonic()):
            yield from sweep(now)
        return written

    def _items(self, collection: str) -> Plan[list[tuple[str, bytes]] | StepFailed]:
        now = self._setup.clock.wall()
        shelf = self._known_shelf(collection)
        try:
            entries = yield from ReadAll(shelf.selection)
        except StepFailed as failed:
            return failed
        kept = [(entry, entry.query.removeprefix(_NAMED)) for entry in entries if entry.query.startswith(_NAMED)]
        return [
            (name, entry.answer.body)
            for entry, name in kept
            if not is_expired(entry, now) and entry.key.digest == shelf.key(name).digest
        ]

    def _remove(self, collection: str, names: Sequence[str]) -> Plan[int | StepFailed]:
        shelf = self._known_shelf(collection)
        try:
            return (yield from Remove(tuple(shelf.key(name) for name in names)))
        except StepFailed as failed:
            return failed

    def _clear(self, collection: str) -> Plan[int | StepFailed]:
        shelf = self._known_shelf(collection)
        try:
            return (yield from Clear(shelf.selection))
        except StepFailed as failed:
            return failed

    def _contained(self, begin: Callable[[], Plan[R]], otherwise: R) -> Plan[R]:
        """What the plan returns; `otherwise` if it cannot be carried out."""
        try:
            return (yield from begin())
        except (StepFailed, NoTenantError):  # The first is counted and said already, the second is a wish.
            return otherwise
        except CONTROL:
            raise
        except BaseException as error:  # noqa: BLE001 - the promise: nothing leaves a read or a write
            self._setup.reporter.contain(error)
            return otherwise

    def _shelf(self, collection: str) -> _Shelf:
        return _Shelf.of(self._kind, self._setup.namespace, current_tenant(self._setup.tenant), collection)

    def _known_shelf(self, collection: str) -> _Shelf:
        """The same for those who must hear of it when nobody knows whose blobs are meant."""
        try:
            return self._shelf(collection)
        except NoTenantError as error:
            raise ConfigurationError("tenant", f"{error}: call this where the tenant is known") from error

    # ---------------------------------------------------------------------------------------- counters

    def _count_read(self, found: Sequence[bytes | None]) -> None:
        missing = sum(blob is None for blob in found)
        self._count(found=len(found) - missing, missing=missing)

    def _count(self, *, found: int = 0, missing: int = 0, stored: int = 0, dropped: int = 0) -> None:
        with self._lock:
            now = self._counts
            self._counts = BlobCounts(
                now.found + found, now.missing + missing, now.stored + stored, now.dropped + dropped
            )


@dataclass(frozen=True, slots=True)
class _Shelf:
    """The place of one collection: its partition, and the whole hash that its keys are made with."""

    partition: Partition
    whole: bytes

    @classmethod
    def of(cls, kind: str, namespace: str, tenant: str | None, collection: str) -> _Shelf:
        fields = (_utf8(kind), _utf8(namespace), b"" if tenant is None else b"=" + _utf8(tenant), _utf8(collection))
        # Each behind its length, so that no two different ones give the same bytes.
        joined = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
        whole = sha256(_PARTITION + joined).digest()
        partition = Partition(
            whole[:_GROUP],
            namespace_hash(namespace),
            tenant_hash(tenant),
            sha256(_COLLECTION + joined).digest()[:_GROUP],  # where an answer has its model: what `clear` selects by
        )
        return cls(partition, whole)

    @property
    def selection(self) -> Selection:
        """All of it."""
        return Selection(self.partition.namespace, self.partition.tenant, self.partition.model)

    def key(self, name: str) -> CacheKey:
        return CacheKey(self.partition, sha256(_BLOB + self.whole + _utf8(name)).digest())

    def entry(self, name: str, blob: bytes, now: float, ttl: float | None, jitter: float, *, named: bool) -> Entry:
        key = self.key(name)
        life = life_of(key, ttl, jitter)
        expires = None if life is None else now + life
        return Entry(key, _NAMED + name if named else "", Answer(blob, _UNSAID), now, expires, life=life)


def _unread() -> bool:
    """A block asked for no cache, or for everything anew."""
    wishes = current_scope()
    return wishes.bypass or wishes.refresh


def _body(reply: object, now: float) -> bytes | None:
    return reply.answer.body if isinstance(reply, Entry) and not is_expired(reply, now) else None


def _write_many(entries: tuple[Entry, ...]) -> Plan[int]:
    """How many were written: all or, as far as anybody knows, none. The driver has counted and logged a failure."""
    try:
        yield from WriteMany(entries)
    except StepFailed:
        return 0
    return len(entries)


def _tolerate(step: CheckEpoch) -> Plan[None]:
    """A failure must not cost the read. The driver has counted and logged it."""
    try:
        yield from step
    except StepFailed:
        return


def _slices(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for begin in range(0, len(names), size):
        yield names[begin : begin + size]


def _loads(pairs: Sequence[tuple[str, bytes]]) -> Iterator[Sequence[tuple[str, bytes]]]:
    """Parts of at most `AT_ONCE` blobs and `BYTES_AT_ONCE` bytes."""
    load: list[tuple[str, bytes]] = []
    weight = 0
    for pair in pairs:
        if load and (len(load) >= AT_ONCE or weight + len(pair[1]) > BYTES_AT_ONCE):
            yield load
            load, weight = [], 0
        load.append(pair)
        weight += len(pair[1])
    if load:
        yield load


def _done(result: R | StepFailed, what: str) -> R:
    if isinstance(result, StepFailed):
        raise StoreError(f"{what} ({result.detail}): mend the store and try again") from result.__cause__
    return result


def _utf8(text: str) -> bytes:
    # Python's str may hold lone surrogates; a strict encoding would make such a name fail.
    return text.encode("utf-8", "surrogatepass")
