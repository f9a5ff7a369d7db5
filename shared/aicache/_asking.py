"""From a step to the store's method: the one place that names both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, assert_never

from aicache._errors import CONTROL, StoreError, UnreadableEntryError, UnwritableEntryError
from aicache._model import CacheKey, Entry, Search
from aicache._steps import (
    Block,
    CheckEpoch,
    Clear,
    Fetch,
    Nearest,
    ReadAll,
    Remove,
    Similar,
    StoreStep,
    Sweep,
    Together,
    Touch,
    Write,
    WriteMany,
)
from aicache.stores.base import AsyncBatchStore, AsyncBulkStore, AsyncStore, BatchStore, BulkStore, Store
from aicache.stores.l1 import L1Circle

__all__ = ["ask", "ask_natively", "forget_in_l1"]

GIVE_UP: Final = 5
"""Failures in a row after which the others of a batch are not tried: each may have waited for a lock, say."""


def ask(step: StoreStep, store: Store, circle: L1Circle) -> Any:
    """What the store answers to a step, blocking."""
    try:
        return _call(step, store)
    finally:
        _tell_l1(step, circle)


async def ask_natively(step: StoreStep, store: AsyncStore, circle: L1Circle) -> Any:
    """The same of a store's async half."""
    try:
        return await _call_natively(step, store)
    finally:
        _tell_l1(step, circle)


def _call(step: StoreStep, store: Store) -> Any:  # noqa: PLR0912 - one case for each step
    match step:
        case Fetch(key):
            return store.fetch(key)
        case Nearest(search):
            return store.nearest(search)
        case Together(reads):
            return _ask_together(reads, store)
        case Write(entry):
            return store.write(entry)
        case WriteMany(entries):
            return _write_many(entries, store)
        case ReadAll(selection):
            if isinstance(store, BulkStore):
                return store.entries(selection)
            raise _cannot_list(store.name)
        case CheckEpoch():
            return store.epoch()
        case Touch(key, expires):
            return store.touch(key, expires)
        case Remove(keys, dry_run):
            return store.remove(keys, dry_run=dry_run)
        case Clear(selection, dry_run):
            return store.clear(selection, dry_run=dry_run)
        case Similar(selection, space, vector, min_score):
            return store.similar(selection, space, vector, min_score)
        case Block(asker, entry):
            return store.block(asker, entry)
        case Sweep(now, limit):
            return store.sweep(now, limit)
        case _:
            assert_never(step)


async def _call_natively(step: StoreStep, store: AsyncStore) -> Any:  # noqa: PLR0912 - one case for each step
    match step:
        case Fetch(key):
            return await store.afetch(key)
        case Nearest(search):
            return await store.anearest(search)
        case Together(reads):
            return await _ask_together_natively(reads, store)
        case Write(entry):
            return await store.awrite(entry)
        case WriteMany(entries):
            return await _write_many_natively(entries, store)
        case ReadAll(selection):
            if isinstance(store, AsyncBulkStore):
                return await store.aentries(selection)
            raise _cannot_list(type(store).__name__)
        case CheckEpoch():
            return await store.aepoch()
        case Touch(key, expires):
            return await store.atouch(key, expires)
        case Remove(keys, dry_run):
            return await store.aremove(keys, dry_run=dry_run)
        case Clear(selection, dry_run):
            return await store.aclear(selection, dry_run=dry_run)
        case Similar(selection, space, vector, min_score):
            return await store.asimilar(selection, space, vector, min_score)
        case Block(asker, entry):
            return await store.ablock(asker, entry)
        case Sweep(now, limit):
            return await store.asweep(now, limit)
        case _:
            assert_never(step)


def _ask_together(reads: Sequence[Fetch | Nearest], store: Store) -> list[Any]:
    if isinstance(store, BatchStore):
        keys, searches = _sorted_by_kind(reads)
        fetched = iter(store.fetch_many(keys) if keys else ())
        found = iter(store.nearest_many(searches) if searches else ())
        return [next(fetched if isinstance(read, Fetch) else found) for read in reads]
    replies: list[Any] = []
    for read in reads:
        try:
            replies.append(_call(read, store))
        except CONTROL:
            raise
        except BaseException as error:  # noqa: BLE001 - stands in the place of this read; the others do without it
            replies.append(error)
            if _is_down(replies):
                break
    return _whole(replies, len(reads))


async def _ask_together_natively(reads: Sequence[Fetch | Nearest], store: AsyncStore) -> list[Any]:
    if isinstance(store, AsyncBatchStore):
        keys, searches = _sorted_by_kind(reads)
        fetched = iter(await store.afetch_many(keys) if keys else ())
        found = iter(await store.anearest_many(searches) if searches else ())
        return [next(fetched if isinstance(read, Fetch) else found) for read in reads]
    replies: list[Any] = []
    for read in reads:
        try:
            replies.append(await _call_natively(read, store))
        except CONTROL:
            raise
        except BaseException as error:  # noqa: BLE001 - stands in the place of this read; the others do without it
            replies.append(error)
            if _is_down(replies):
                break
    return _whole(replies, len(reads))


def _write_many(entries: Sequence[Entry], store: Store) -> None:
    if isinstance(store, BulkStore):
        store.write_many(entries)
        return
    replies: list[BaseException | None] = []
    for entry in entries:
        try:
            store.write(entry)
        except CONTROL:
            raise
        except BaseException as error:  # noqa: BLE001 - the others are written all the same; raised at the end
            replies.append(error)
            if _is_down(replies):
                break
        else:
            replies.append(None)
    _raise_failure(replies)


async def _write_many_natively(entries: Sequence[Entry], store: AsyncStore) -> None:
    if isinstance(store, AsyncBulkStore):
        await store.awrite_many(entries)
        return
    replies: list[BaseException | None] = []
    for entry in entries:
        try:
            await store.awrite(entry)
        except CONTROL:
            raise
        except BaseException as error:  # noqa: BLE001 - the others are written all the same; raised at the end
            replies.append(error)
            if _is_down(replies):
                break
        else:
            replies.append(None)
    _raise_failure(replies)


def _raise_failure(replies: Sequence[BaseException | None]) -> None:
    """Raise one that says something of the store, rather than of an entry, if there is one."""
    failures = [reply for reply in replies if reply is not None]
    if failures:
        raise next(filter(_is_failure, failures), failures[0])


def _cannot_list(name: str) -> StoreError:
    return StoreError(f"The store {name} cannot list its entries; use one that has `entries`, as aicache's own have.")


def _is_failure(reply: object) -> bool:
    """A damaged entry is none, nor is one that cannot be written: the store answered."""
    return isinstance(reply, BaseException) and not isinstance(reply, (UnreadableEntryError, UnwritableEntryError))


def _is_down(replies: Sequence[object]) -> bool:
    return len(replies) >= GIVE_UP and all(_is_failure(reply) for reply in replies[-GIVE_UP:])


def _whole(replies: list[Any], count: int) -> list[Any]:
    """As many replies as reads: those that were not tried fail as the last one did.

    Raises:
        BaseException: of a store that answered none of them, so that it counts as one failure.
    """
    if replies and all(_is_failure(reply) for reply in replies):
        raise replies[-1]
    return replies + replies[-1:] * (count - len(replies))


def _sorted_by_kind(reads: Sequence[Fetch | Nearest]) -> tuple[list[CacheKey], list[Search]]:
    keys = [read.key for read in reads if isinstance(read, Fetch)]
    return keys, [read.search for read in reads if isinstance(read, Nearest)]


def _tell_l1(step: StoreStep, circle: L1Circle) -> None:
    """What the memory in front of the store has to hear of a step, however it went."""
    if isinstance(step, Write):
        circle.replaced(step.entry.key)
    elif isinstance(step, WriteMany):
        for entry in step.entries:
            circle.forget(entry.key)
    else:
        forget_in_l1(step, circle)


def forget_in_l1(step: StoreStep, circle: L1Circle) -> None:
    """Of a removal, the part that concerns L1, and those of other caches in front of the same store.

    Done first, for the store may be left alone, and again last, whatever it answered: a lookup that read the store just
    before it forgot the entry cannot bring it back then.
    """
    if not isinstance(step, (Remove, Clear)) or step.dry_run:
        return
    if isinstance(step, Clear):
        circle.forget(step.selection)
    else:
        for key in step.keys:
            circle.forget(key)
