"""Rules of the updates that wait for a store."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from aicache import StoreError
from aicache._errors import UnwritableEntryError
from aicache._model import CacheKey, Entry, Selection
from aicache._pending import PATIENCE, PendingUpdate, PendingUpdates
from aicache.testing import make_entry, make_partition

NOW = 1_000.0


def entry(name: str, *, body: bytes = b"answer", expires: float | None = None, **more: Any) -> Entry:
    return make_entry(name, body=body, expires=expires, **more)


def pending(*entries: Entry, **bounds: int) -> PendingUpdates:
    kept = PendingUpdates(**bounds)
    for one in entries:
        kept.add(PendingUpdate(one))
    return kept


class Store:
    """Takes what it is given, until told to fail at a key."""

    def __init__(self, *, fails_at: Sequence[CacheKey] = (), error: Exception | None = None) -> None:
        self.acts: list[Entry | CacheKey] = []
        self.fails_at = fails_at
        self.error = error or StoreError("down")

    def write(self, update: PendingUpdate) -> None:
        if update.entry.key in self.fails_at:
            raise self.error
        self.acts.append(update.entry)

    def remove(self, key: CacheKey) -> None:
        self.acts.append(key)


def drained(kept: PendingUpdates, now: float = NOW) -> list[Entry | CacheKey]:
    store = Store()
    kept.drain(store.write, store.remove, now)
    return store.acts


A, B, C = entry("a"), entry("b"), entry("c")


def test_what_was_kept_is_written_in_order() -> None:
    kept = pending(A, B, C)
    assert drained(kept) == [A, B, C]
    assert not kept.waiting
    assert kept.counts.replayed == 3


def test_the_newest_update_of_a_key_wins_and_takes_its_place_at_the_end() -> None:
    newer = entry("a", body=b"newer")
    assert drained(pending(A, B, newer)) == [B, newer]


def test_beyond_the_number_of_entries_the_oldest_is_lost_and_counted() -> None:
    kept = pending(A, B, C, max_entries=2)
    assert kept.counts.lost == 1
    assert drained(kept) == [B, C]


def test_beyond_the_bytes_the_oldest_are_lost_and_counted() -> None:
    kept = pending(A, B, C, max_bytes=A.weight + B.weight)
    assert kept.counts.bytes == B.weight + C.weight
    assert kept.counts.lost == 1
    kept.add(PendingUpdate(entry("d", body=b"x" * (A.weight + B.weight))))
    assert (kept.counts.waiting, kept.counts.bytes, kept.counts.lost) == (0, 0, 4)


def test_with_a_bound_of_none_nothing_is_kept_and_all_is_counted() -> None:
    kept = pending(A, B, max_entries=0)
    assert not kept.waiting
    assert kept.counts.lost == 2


def test_the_first_failure_ends_the_replay_and_the_rest_stays_in_order() -> None:
    kept = pending(A, B, C)
    store = Store(fails_at=[B.key])
    with pytest.raises(StoreError):
        kept.drain(store.write, store.remove, NOW)
    assert store.acts == [A]
    assert (kept.counts.waiting, kept.counts.replayed, kept.counts.lost) == (2, 1, 0)
    assert drained(kept) == [B, C]


def test_an_update_the_store_keeps_rejecting_does_not_hold_up_the_others() -> None:
    kept = pending(A, B)
    store = Store(fails_at=[A.key])
    for _ in range(PATIENCE):
        with pytest.raises(StoreError):
            kept.drain(store.write, store.remove, NOW)
    with pytest.raises(StoreError):
        kept.drain(store.write, store.remove, NOW)
    assert store.acts == [B]
    assert drained(kept) == [A]


def test_an_entry_that_can_never_be_written_is_lost_and_the_replay_goes_on() -> None:
    kept = pending(A, B)
    store = Store(fails_at=[A.key], error=UnwritableEntryError("too large"))
    assert kept.drain(store.write, store.remove, NOW) == 1
    assert store.acts == [B]
    assert kept.counts.lost == 1


def test_expired_updates_are_dropped_at_replay() -> None:
    expired, fresh = entry("a", expires=NOW), entry("b", expires=NOW + 1)
    kept = pending(expired, fresh)
    assert drained(kept) == [fresh]
    assert kept.counts.lost == 0
    assert not kept.waiting


def test_a_replay_told_to_stop_keeps_the_rest() -> None:
    kept, store = pending(A, B), Store()
    assert kept.drain(store.write, store.remove, NOW, lambda: not store.acts) == 1
    assert drained(kept) == [B]


def test_only_one_replay_runs_at_a_time() -> None:
    kept, store = pending(A, B), Store()
    inner: list[int] = []

    def write(update: PendingUpdate) -> None:
        inner.append(kept.drain(store.write, store.remove, NOW))
        store.write(update)

    assert kept.drain(write, store.remove, NOW) == 2
    assert inner == [0, 0]
    assert store.acts == [A, B]


def test_a_newer_answer_written_directly_is_not_followed_by_the_older_one() -> None:
    kept = pending(A, B)
    assert kept.supersede(A) is False
    assert drained(kept) == [B]


def while_writing(kept: PendingUpdates, store: Store, act: Callable[[], object]) -> Callable[[PendingUpdate], None]:
    """A write during which, the first time, something else happens."""
    done: list[bool] = []

    def write(update: PendingUpdate) -> None:
        if not done:
            done.append(True)
            act()
        store.write(update)

    return write


def test_a_newer_answer_written_directly_during_the_replay_is_to_be_written_again() -> None:
    kept, store = pending(A), Store()
    newer = entry("a", body=b"newer")
    said: list[bool] = []

    def overtake() -> None:
        said.append(kept.supersede(A))
        kept.add(PendingUpdate(newer))

    kept.drain(while_writing(kept, store, overtake), store.remove, NOW)
    assert said == [True]
    assert store.acts == [A, newer]


@pytest.mark.parametrize("how", ["forget", "clear"])
def test_what_was_removed_meanwhile_is_not_written(how: str) -> None:
    kept = pending(A, B)
    if how == "forget":
        kept.forget([A.key])
    else:
        kept.clear(Selection())
        kept.add(PendingUpdate(B))
    assert drained(kept) == [B]
    assert kept.counts.lost == 0


@pytest.mark.parametrize("how", ["forget", "clear"])
def test_what_was_removed_during_its_own_write_is_removed_after_it(how: str) -> None:
    kept, store = pending(A), Store()

    def remove() -> None:
        if how == "forget":
            kept.forget([A.key])
        else:
            kept.clear(Selection())

    kept.drain(while_writing(kept, store, remove), store.remove, NOW)
    assert store.acts == [A, A.key]
    assert not kept.waiting


def test_what_was_removed_during_its_own_failed_write_does_not_come_back() -> None:
    kept, store = pending(A), Store(fails_at=[A.key])
    with pytest.raises(StoreError):
        kept.drain(while_writing(kept, store, lambda: kept.forget([A.key])), store.remove, NOW)
    assert drained(kept) == [A.key]


def test_an_answer_given_after_the_removal_survives_it() -> None:
    kept, store = pending(A), Store()
    newer = entry("a", body=b"newer")

    def remove_and_answer_again() -> None:
        kept.clear(Selection())
        kept.add(PendingUpdate(newer))

    kept.drain(while_writing(kept, store, remove_and_answer_again), store.remove, NOW)
    assert store.acts == [A, A.key, newer]


def test_a_removal_that_fails_is_tried_again_before_anything_is_written() -> None:
    kept, store = pending(A, B), Store()

    def refuse(key: CacheKey) -> None:
        raise StoreError("down")

    with pytest.raises(StoreError):
        kept.drain(while_writing(kept, store, lambda: kept.forget([A.key])), refuse, NOW)
    assert kept.waiting
    assert drained(kept) == [A.key, B]


def test_an_answer_written_directly_after_a_removal_survives_it() -> None:
    kept, store = pending(A), Store()

    def refuse(key: CacheKey) -> None:
        raise StoreError("down")

    with pytest.raises(StoreError):
        kept.drain(while_writing(kept, store, lambda: kept.forget([A.key])), refuse, NOW)
    kept.supersede(A)
    assert drained(kept) == []


def test_clear_drops_what_agrees_with_every_part_of_the_selection() -> None:
    partition = make_partition(tenant="one")
    mine = entry("a", partition=partition, tags=("prices",))
    other = entry("b", tags=("prices",))
    for selection, left in (
        (Selection(tenant=partition.tenant, tags=("prices",)), [other]),
        (Selection(tenant=partition.tenant, tags=("news",)), [mine, other]),
        (Selection(tags=("prices",)), []),
        (Selection(namespace=b"another"), [mine, other]),
        (Selection(model=partition.model, tenant=partition.tenant), [other]),
    ):
        kept = pending(mine, other)
        kept.clear(selection)
        assert drained(kept) == left, selection


def test_counts_start_anew_but_what_waits_stays() -> None:
    kept = pending(A, B, C, max_entries=2)
    kept.reset_counts()
    assert (kept.counts.waiting, kept.counts.lost) == (2, 0)


async def test_the_async_replay_does_the_same() -> None:
    kept, store = pending(A, B, C), Store(fails_at=[B.key])

    async def write(update: PendingUpdate) -> None:
        await asyncio.sleep(0)
        store.write(update)

    async def remove(key: CacheKey) -> None:
        store.remove(key)

    with pytest.raises(StoreError):
        await kept.adrain(write, remove, NOW)
    store.fails_at = ()
    kept.forget([C.key])
    assert await kept.adrain(write, remove, NOW) == 1
    assert store.acts == [A, B]


async def test_a_cancelled_replay_keeps_what_it_was_writing() -> None:
    kept = pending(A, B)
    writing = asyncio.Event()

    async def write(update: PendingUpdate) -> None:
        writing.set()
        await asyncio.Event().wait()

    async def remove(key: CacheKey) -> None:
        raise AssertionError

    task = asyncio.create_task(kept.adrain(write, remove, NOW))
    await writing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert drained(kept) == [A, B]


# ----------------------------------------------------------------------------------- direct writes that fail late


def test_a_direct_write_that_failed_is_kept() -> None:
    kept = PendingUpdates()
    kept.supersede(A)
    kept.add_failed(PendingUpdate(A))
    assert kept.counts.waiting == 1


def test_a_direct_write_that_was_cleared_while_it_failed_is_not_kept() -> None:
    for forget in (lambda kept: kept.clear(Selection()), lambda kept: kept.forget([A.key])):
        kept = PendingUpdates()
        kept.supersede(A)
        forget(kept)
        kept.add_failed(PendingUpdate(A))
        assert kept.counts.waiting == 0


def test_a_direct_write_that_failed_after_a_newer_one_began_is_not_kept() -> None:
    kept = PendingUpdates()
    newer = replace(A, created=A.created + 1)
    kept.supersede(A)
    kept.supersede(newer)
    kept.ended(newer)
    kept.add_failed(PendingUpdate(A))
    assert kept.counts.waiting == 0


def test_a_direct_write_that_ended_leaves_nothing_behind() -> None:
    kept = PendingUpdates()
    kept.supersede(A)
    kept.ended(A)
    assert kept._direct == {}


async def test_a_drain_that_is_taken_back_keeps_what_it_was_writing_and_takes_no_more() -> None:
    kept, store, gate = pending(A, B), Store(), asyncio.Event()

    async def write(update: PendingUpdate) -> None:
        await gate.wait()
        store.write(update)

    async def remove(key: CacheKey) -> None:
        store.remove(key)

    left = asyncio.create_task(kept.adrain(write, remove, NOW))
    await asyncio.sleep(0)
    kept.take_back()
    assert kept.counts.waiting == 2
    assert drained(kept) == [A, B]
    kept.add(PendingUpdate(C))
    gate.set()
    assert await left == 0
    assert store.acts == [A]
    assert drained(kept) == [C]


def test_a_drain_of_a_thread_is_not_taken_back() -> None:
    kept, acts = pending(A, B), list[Entry]()

    def write(update: PendingUpdate) -> None:
        kept.take_back()
        acts.append(update.entry)

    assert kept.drain(write, Store().remove, NOW) == 2
    assert acts == [A, B]


def test_the_update_that_is_being_written_is_among_those_counted_as_waiting() -> None:
    kept, counted = pending(A, B), list[int]()
    kept.drain(lambda _: counted.append(kept.counts.waiting), Store().remove, NOW)
    assert counted == [2, 1]
    assert kept.counts.waiting == 0
