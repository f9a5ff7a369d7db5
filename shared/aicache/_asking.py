"""From a step to the store's method: the one place that names both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, assert_never

from aicache._errors import CONTROL, UnreadableEntryError
from aicache._model import CacheKey, Search
from aicache._steps import (
    Block,
    CheckEpoch,
    Clear,
    Fetch,
    Nearest,
    Remove,
    Similar,
    StoreStep,
    Sweep,
    Together,
    Touch,
    Write,
)
from aicache.stores.base import AsyncBatchStore, AsyncStore, BatchStore, Store
from aicache.stores.l1 import L1Circle

__all__ = ["ask", "ask_natively", "forget_in_l1"]

GIVE_UP: Final = 5
"""Failed reads in a row after which the others of a batch are not tried: each may have waited for a lock, say."""


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


def _call(step: StoreStep, store: Store) -> Any:
    match step:
        case Fetch(key):
            return store.fetch(key)
        case Nearest(search):
            return store.nearest(search)
        case Together(reads):
            return _ask_together(reads, store)
        case Write(entry):
            return store.write(entry)
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


async def _call_natively(step: StoreStep, store: AsyncStore) -> Any:
    match step:
        case Fetch(key):
            return await store.afetch(key)
        case Nearest(search):
            return await store.anearest(search)
        case Together(reads):
            return await _ask_together_natively(reads, store)
        case Write(entry):
            return await store.awrite(entry)
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


def _is_failure(reply: object) -> bool:
    """A damaged entry is none: the store answered."""
    return isinstance(reply, BaseException) and not isinstance(reply, UnreadableEntryError)


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
