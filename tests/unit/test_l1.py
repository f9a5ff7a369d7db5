"""Rules of `EntryTable` and of `L1Cache` on top of it."""

from __future__ import annotations

import gc
import random
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from aicache import ConfigurationError
from aicache._eviction import EVICTIONS
from aicache._model import Entry, Selection, StoreSize
from aicache.stores._table import EntryTable
from aicache.stores.l1 import _GROUPS, L1Cache, L1Circle
from aicache.testing._builders import make_entry, make_key, make_partition, make_vector


def make_table(
    *,
    max_entries: int = 100,
    max_bytes: int = 2**20,
    eviction_name: str = "lru",
    on_removed: Callable[[Entry], None] | None = None,
) -> EntryTable:
    return EntryTable(max_entries=max_entries, max_bytes=max_bytes, eviction_name=eviction_name, on_removed=on_removed)


# ------------------------------------------------------------------------------------------ construction


@pytest.mark.parametrize("parameter", ["max_entries", "max_bytes"])
@pytest.mark.parametrize("value", [0, -5, 1.5, True, "10", None])
def test_a_bound_must_be_a_whole_number_of_at_least_one(parameter: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        L1Cache(**{parameter: value})  # type: ignore[arg-type]
    assert caught.value.parameter == parameter


def test_an_unknown_eviction_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=", ".join(EVICTIONS)) as caught:
        L1Cache(eviction="fifo")
    assert caught.value.parameter == "eviction"


# ------------------------------------------------------------------------------------------ the table


def test_an_entry_heavier_than_the_table_is_refused_and_displaces_nothing() -> None:
    removed: list[Entry] = []
    small, large = make_entry("small"), make_entry("large", body=b"x" * 5_000)
    table = make_table(max_bytes=5_000, on_removed=removed.append)
    assert table.put(small) is True
    assert table.put(large) is False
    assert table.get(small.key.digest) == small
    assert table.get(large.key.digest) is None
    assert removed == []


def test_an_entry_that_is_refused_takes_its_outdated_predecessor_along() -> None:
    removed: list[Entry] = []
    old, new = make_entry(), make_entry(body=b"x" * 5_000)
    table = make_table(max_bytes=5_000, on_removed=removed.append)
    table.put(old)
    assert table.put(new) is False
    assert table.get(old.key.digest) is None
    assert removed == [old]
    assert table.size() == StoreSize(0, 0)


@pytest.mark.parametrize("name", EVICTIONS)
def test_a_heavy_entry_displaces_as_many_as_needed(name: str) -> None:
    removed: list[Entry] = []
    light = [make_entry(f"light {number}") for number in range(10)]
    table = make_table(max_bytes=sum(entry.weight for entry in light), eviction_name=name, on_removed=removed.append)
    for entry in light:
        table.put(entry)
    assert removed == []
    heavy = make_entry("heavy", body=b"x" * 1_500)
    table.put(heavy)
    held = [entry for entry in (*light, heavy) if table.peek(entry.key.digest) is not None]
    assert table.size() == StoreSize(len(held), sum(entry.weight for entry in held))
    assert sorted(entry.query for entry in (*held, *removed)) == sorted(entry.query for entry in (*light, heavy))


def test_peek_does_not_count_as_a_use() -> None:
    table = make_table(max_entries=2)
    first, second, third = (make_entry(name) for name in ("first", "second", "third"))
    table.put(first)
    table.put(second)
    assert table.peek(first.key.digest) == first
    table.put(third)
    assert table.get(first.key.digest) is None


def test_get_counts_as_a_use_before_the_next_eviction() -> None:
    table = make_table(max_entries=2)
    first, second, third = (make_entry(name) for name in ("first", "second", "third"))
    table.put(first)
    table.put(second)
    table.get(first.key.digest)
    table.put(third)
    assert table.get(first.key.digest) == first
    assert table.get(second.key.digest) is None


def test_a_selection_takes_the_entries_that_agree_in_every_field() -> None:
    entries = {
        (tenant, model, tag): make_entry(
            f"{tenant} {model} {tag}",
            partition=make_partition(tenant=tenant, model=model),
            tags=[tag, "all"],
        )
        for tenant in ("t1", "t2")
        for model in ("m1", "m2")
        for tag in ("a", "b")
    }
    partition = make_partition(tenant="t1", model="m2")
    for selection, expected in (
        (Selection(tenant=partition.tenant), 4),
        (Selection(tenant=partition.tenant, model=partition.model), 2),
        (Selection(tenant=partition.tenant, model=partition.model, tags=("a",)), 1),
        (Selection(namespace=partition.namespace), 8),
        (Selection(namespace=b"other"), 0),
        (Selection(tags=("all",)), 8),
        (Selection(tags=("a",), model=partition.model), 2),
        (Selection(tags=("none",)), 0),
        (Selection(), 8),
    ):
        table = make_table()
        for entry in entries.values():
            table.put(entry)
        assert table.clear(selection) == expected, selection
        assert table.size().entries == 8 - expected


def test_a_selection_takes_what_carries_all_tags_and_was_written_before_the_time() -> None:
    entries = [
        make_entry(f"q{number}", created=float(number), tags=tags, partition=make_partition(model_name=name))
        for number, (tags, name) in enumerate(
            ((["a"], None), (["a", "b"], None), (["b", "a", "c"], "large"), (["b"], "large"), ([], "small"))
        )
    ]
    for selection, expected in (
        (Selection(tags=("a", "b")), [1, 2]),
        (Selection(tags=("b", "a", "b")), [1, 2]),
        (Selection(tags=("a", "none")), []),
        (Selection(written_before=2.0), [0, 1]),
        (Selection(tags=("b",), written_before=3.0), [1, 2]),
        (Selection(model_name=entries[2].key.partition.model_name), [2, 3]),
        (Selection(model_name=b""), [0, 1]),
        (Selection(written_before=0.0), []),
    ):
        l1 = L1Cache()
        for entry in entries:
            l1.put(entry)
        assert l1.clear(selection) == len(expected), selection
        left = [number for number, entry in enumerate(entries) if l1.get(entry.key) is not None]
        assert left == [number for number in range(5) if number not in expected]


def test_selecting_and_counting_take_nothing_and_count_no_use() -> None:
    table = make_table(max_entries=2)
    entries = [make_entry(f"q{number}") for number in range(3)]
    for entry in entries[:2]:
        table.put(entry)
    assert table.select(Selection()) == entries[:2]
    assert table.count([entries[0].key.digest, entries[0].key.digest, entries[2].key.digest]) == 1
    table.put(entries[2])
    assert table.select(Selection()) == entries[1:]


def test_a_tag_given_twice_is_one_tag() -> None:
    table = make_table()
    table.put(make_entry(tags=["x", "x"]))
    assert table.clear(Selection(tags=("x",))) == 1
    assert table.size().entries == 0


def test_a_replaced_entry_is_no_longer_selected_by_its_old_tags() -> None:
    table = make_table()
    table.put(make_entry(tags=["old"]))
    table.put(make_entry(tags=["new"]))
    assert table.clear(Selection(tags=("old",))) == 0
    assert table.clear(Selection(tags=("new",))) == 1


def test_removing_a_digest_twice_counts_once() -> None:
    table = make_table()
    entry = make_entry()
    table.put(entry)
    assert table.remove([entry.key.digest, entry.key.digest, make_key("unknown").digest]) == 1


def test_touch_changes_when_an_entry_expires_without_letting_it_go() -> None:
    removed: list[Entry] = []
    table = make_table(on_removed=removed.append)
    entry = make_entry(expires=5.0)
    table.put(entry)
    table.touch(entry.key.digest, 50.0)
    assert table.get(entry.key.digest) == replace(entry, expires=50.0)
    assert removed == []
    assert table.sweep(5.0, 10) == 0
    assert table.sweep(50.0, 10) == 1


def test_join_changes_the_cluster_of_an_entry_without_letting_it_go() -> None:
    removed: list[Entry] = []
    table = make_table(on_removed=removed.append)
    red, blue = b"r" * 16, b"b" * 16
    entry = make_entry(cluster=red, expires=5.0)
    table.put(entry)
    table.put(make_entry("other", cluster=red))
    table.join(entry.key.digest, blue)
    table.join(make_key("gone").digest, blue)
    assert table.get(entry.key.digest) == replace(entry, cluster=blue)
    assert (table.cluster_size(red), table.cluster_size(blue)) == (1, 1)
    table.join(make_key("other").digest, blue)
    assert table.cluster_size(blue) == 2
    assert removed == []
    assert table.sweep(5.0, 10) == 1
    assert table.cluster_size(blue) == 1


def test_a_table_begun_anew_counts_from_the_beginning() -> None:
    table, red = make_table(), b"r" * 16
    for begin in (table.restart, lambda: table.clear(Selection())):
        for number in range(3):
            table.put(make_entry(f"q{number}", cluster=red))
        assert table.cluster_size(red) == 3
        begin()
    table.put(make_entry("q", cluster=red))
    assert table.cluster_size(red) == 1


def test_an_entry_whose_life_is_cut_short_is_swept_then() -> None:
    table = make_table()
    table.put(make_entry(expires=50.0))
    table.touch(make_key().digest, 5.0)
    assert table.sweep(4.0, 10) == 0
    assert table.sweep(5.0, 10) == 1


def test_touching_what_is_gone_does_nothing() -> None:
    table = make_table()
    table.touch(make_key("gone").digest, 5.0)
    assert table.size().entries == 0


def test_a_sweep_stops_at_its_limit_and_takes_the_first_to_expire() -> None:
    table = make_table()
    entries = [make_entry(f"q{number}", expires=float(number)) for number in (5, 1, 4, 2, 3)]
    for entry in entries:
        table.put(entry)
    assert table.sweep(4.0, 0) == 0
    assert table.sweep(4.0, 3) == 3
    assert sorted(entry.query for entry in entries if table.peek(entry.key.digest)) == ["q4", "q5"]
    assert table.sweep(4.0, 10) == 1
    assert table.sweep(4.0, 10) == 0


def test_expiry_times_of_entries_that_are_gone_do_not_pile_up() -> None:
    table = make_table(max_entries=10)
    for number in range(2_000):
        table.put(make_entry(f"q{number}", expires=1e9 + number))
    for number in range(2_000):
        table.touch(make_key("q1999").digest, 2e9 + number)
    assert len(table._expiries._heap) <= 2 * 10 + 64


def test_the_entries_of_a_cleared_table_do_not_come_back_in_a_sweep() -> None:
    table = make_table()
    table.put(make_entry(expires=1.0))
    table.clear(Selection())
    table.put(make_entry())
    assert table.sweep(10.0, 10) == 0


# ------------------------------------------------------------------------------------------------- L1


def test_an_entry_is_kept_without_its_vector() -> None:
    entry = make_entry(vector=make_vector(*range(1, 385)))
    l1 = L1Cache()
    l1.put(entry)
    assert l1.get(entry.key) == replace(entry, vector=None, space=None)
    assert l1.size() == StoreSize(1, replace(entry, vector=None, space=None).weight)


def test_an_expired_entry_is_still_returned() -> None:
    entry = make_entry(created=1.0, expires=2.0)
    l1 = L1Cache()
    l1.put(entry)
    assert l1.get(entry.key) == entry


def test_a_discarded_entry_is_gone_and_others_stay() -> None:
    l1 = L1Cache()
    gone, stays = make_entry("gone"), make_entry("stays")
    l1.put(gone)
    l1.put(stays)
    l1.discard(gone.key)
    assert l1.get(gone.key) is None
    assert l1.get(stays.key) == stays


def test_what_was_kept_before_the_first_epoch_is_forgotten() -> None:
    l1 = L1Cache()
    l1.put(make_entry())
    l1.observe(7)
    assert l1.size().entries == 0


def test_an_equal_epoch_changes_nothing_and_another_one_empties_l1() -> None:
    l1 = L1Cache()
    l1.observe(7)
    l1.put(make_entry())
    l1.observe(7)
    assert l1.size().entries == 1
    l1.observe(3)
    assert l1.size() == StoreSize(0, 0)
    l1.put(make_entry())
    l1.observe(3)
    assert l1.size().entries == 1


@pytest.mark.parametrize(
    "remove",
    [
        lambda l1: l1.discard(make_key()),
        lambda l1: l1.clear(Selection(tags=("x",))),
        lambda l1: (l1.observe(1), l1.observe(2)),
    ],
    ids=["discard", "clear", "observe"],
)
def test_an_entry_read_before_a_removal_is_not_brought_back(remove: Callable[[L1Cache], object]) -> None:
    l1 = L1Cache()
    mark = l1.mark
    l1.put(make_entry("unaffected"), since=mark)
    assert l1.size().entries == 1
    remove(l1)
    l1.put(make_entry(), since=mark)
    assert l1.get(make_key()) is None
    l1.put(make_entry(), since=l1.mark)
    assert l1.get(make_key()) is not None


def test_a_removal_in_the_middle_of_a_put_wins() -> None:
    l1 = L1Cache()
    pending = [Selection()]

    class Overlapping(Entry):
        @property
        def weight(self) -> int:  # asked for in the middle of a put, before the lock is taken
            if pending:
                l1.clear(pending.pop())
            return 500

    plain = make_entry()
    entry = Overlapping(plain.key, plain.query, plain.answer, plain.created)
    l1.put(entry, since=l1.mark)
    assert pending == []
    assert l1.get(entry.key) is None


# ---------------------------------------------------------------------------------- in front of one store object


class Anything:
    """Stands for a store; equal to all others and not hashable."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class Slotted:
    """One that cannot be weakly referenced."""

    __slots__ = ()


def l1_with(*entries: Entry) -> L1Cache:
    l1 = L1Cache()
    for entry in entries:
        l1.put(entry)
    return l1


def test_what_one_is_told_to_forget_all_in_front_of_the_same_store_forget() -> None:
    for what in (make_key(), Selection()):
        store, l1s = Anything(), [l1_with(make_entry()) for _ in range(3)]
        marks = [l1.mark for l1 in l1s]
        circles = [L1Circle(l1, store) for l1 in l1s]
        circles[1].forget(what)
        assert [l1.get(make_key()) for l1 in l1s] == [None] * 3
        assert all(l1.mark is not mark for l1, mark in zip(l1s, marks, strict=True))


def test_a_replaced_entry_leaves_the_others_and_stays_where_it_was_written() -> None:
    store, own, other = Anything(), l1_with(make_entry()), l1_with(make_entry())
    circle, _ = L1Circle(own, store), L1Circle(other, store)
    mark = own.mark
    circle.replaced(make_key())
    assert own.get(make_key()) is not None
    assert own.mark is mark
    assert other.get(make_key()) is None


def test_a_cache_without_l1_tells_those_that_have_one() -> None:
    store, l1s = Anything(), [l1_with(make_entry("a"), make_entry("b")) for _ in range(2)]
    for l1 in l1s:
        L1Circle(l1, store)
    without = L1Circle(None, store)
    without.replaced(make_key("a"))
    without.forget(make_key("b"))
    assert [l1.size().entries for l1 in l1s] == [0, 0]


def test_those_in_front_of_another_store_hear_nothing() -> None:
    stores = Anything(), Anything(), Slotted(), Slotted()
    l1s = [l1_with(make_entry()) for _ in stores]
    circles = [L1Circle(l1, store) for l1, store in zip(l1s, stores, strict=True)]
    circles[0].forget(Selection())
    circles[2].forget(Selection())
    assert [l1.size().entries for l1 in l1s] == [0, 1, 0, 1]


def test_nobody_in_front_of_a_store_keeps_another_or_the_store_alive() -> None:
    store, stays, goes = Anything(), l1_with(make_entry()), l1_with(make_entry())
    circle = L1Circle(stays, store)
    L1Circle(goes, store)
    gone = weakref.ref(goes), weakref.ref(store)
    place = id(store)
    assert place in _GROUPS._groups
    del goes, store
    gc.collect()
    assert [one() for one in gone] == [None, None]
    assert place not in _GROUPS._groups
    circle.forget(Selection())
    assert stays.size().entries == 0


# -------------------------------------------------------------------------------------------- threads


@pytest.fixture
def _busy_switching() -> Iterator[None]:
    """Threads take turns a thousand times more often, so that a missing lock shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_busy_switching")
@pytest.mark.parametrize("name", EVICTIONS)
def test_eight_threads_keep_the_bounds_and_never_mix_entries(name: str) -> None:
    max_entries, max_bytes = 50, 20_000
    l1 = L1Cache(max_entries=max_entries, max_bytes=max_bytes, eviction=name)
    entries = [
        make_entry(f"q{number}", f"a{number}", expires=float(number), tags=[f"g{number % 7}"], body=b"x" * number)
        for number in range(120)
    ]
    faults: list[object] = []
    start = threading.Barrier(8)

    def hammer(seed: int) -> None:
        chance = random.Random(seed)
        start.wait()
        try:
            for _ in range(400):
                entry = chance.choice(entries)
                match chance.randrange(20):
                    case 0:
                        l1.discard(entry.key)
                    case 1:
                        l1.clear(Selection(tags=(f"g{chance.randrange(7)}",)))
                    case 2:
                        l1.touch(entry.key, chance.random())
                    case 3:
                        l1.observe(chance.randrange(2))
                    case 4 | 5 | 6 | 7 | 8:
                        l1.put(entry)
                    case _:
                        found = l1.get(entry.key)
                        if found is not None and replace(found, expires=entry.expires) != entry:
                            faults.append(("mixed", found.query))
                size = l1.size()
                if size.entries > max_entries or size.bytes > max_bytes:
                    faults.append(size)
        except Exception as error:  # noqa: BLE001 - an error in a thread must reach the test
            faults.append(error)

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    held = [found for entry in entries if (found := l1.get(entry.key)) is not None]
    assert l1.size() == StoreSize(len(held), sum(entry.weight for entry in held))
    assert l1.clear(Selection()) == len(held)
    assert l1.size() == StoreSize(0, 0)
