"""The part of a store's specification that is about writing many entries at once and listing them.

A store need not be a `BulkStore`; then all of it is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from aicache._model import Entry, Search, Selection
from aicache.stores.base import BulkStore, LessonStore, Store
from aicache.testing._builders import make_entry, make_key, make_partition, make_vector
from aicache.testing._contract_removal import SPACE, entries_to_select_from, found_near, selected, selections

__all__ = ["BulkRules", "skip"]

_EAST, _NORTH = make_vector(1, 0), make_vector(0, 1)
_RED, _BLUE, _GREEN = b"red cluster 16by", b"blue cluster 16b", b"green cluster 16"


def skip(why: str) -> NoReturn:
    """Leave the test: it is about what the store does not claim to do."""
    from unittest import SkipTest  # Test frameworks know it, and nobody who imports the kit pays for it.

    raise SkipTest(why)


class BulkRules:
    """`BulkStore`: writing many entries at once, and listing them."""

    def test_many_entries_are_written_as_one_by_one(self, store: Store) -> None:
        bulk = _bulk(store)
        entries = entries_to_select_from()
        bulk.write_many(entries)
        assert store.size().entries == len(entries)
        for entry in entries:
            assert store.fetch(entry.key) == entry
            assert entry in found_near(store, _EAST, partition=entry.key.partition)

    def test_writing_none_does_nothing(self, store: Store) -> None:
        bulk = _bulk(store)
        bulk.write_many([])
        assert store.size().entries == 0

    def test_many_replace_their_predecessors_and_the_last_of_a_key_stays(self, store: Store) -> None:
        bulk = _bulk(store)
        store.write(make_entry("q", "old", vector=_EAST, tags=["old"], cluster=_RED))
        last = make_entry("q", "last", vector=_NORTH, cluster=_BLUE)
        other = make_entry("other", vector=_EAST, cluster=_BLUE)
        bulk.write_many([make_entry("q", "first", vector=_EAST, cluster=_RED), other, last])
        assert store.fetch(last.key) == last
        assert found_near(store, _EAST) == [other, last]
        assert store.size().entries == 2
        assert store.clear(Selection(tags=("old",))) == 0
        if isinstance(store, LessonStore):
            assert [one.cluster_size for one in store.nearest(Search(make_partition(), SPACE, _EAST, 5))] == [2, 2]

    def test_hundreds_are_written_and_listed(self, store: Store) -> None:
        bulk = _bulk(store)
        homes = [make_partition(f"conversation {number}") for number in range(7)]
        entries = [
            make_entry(f"q{number}", partition=homes[number % 7], vector=make_vector(1, number))
            for number in range(600)
        ]
        bulk.write_many(entries)
        assert _by_key(bulk.entries(Selection())) == _by_key(entries)
        assert len(found_near(store, _EAST, partition=homes[3])) == 50

    def test_the_entries_of_a_selection_are_listed_whole(self, store: Store) -> None:
        bulk = _bulk(store)
        entries = entries_to_select_from()
        bulk.write_many(entries)
        for name, selection in selections().items():
            expected = [entry for entry in entries if selected(entry, selection)]
            assert _by_key(bulk.entries(selection)) == _by_key(expected), name
        assert len(bulk.entries(Selection(tags=("unknown",)))) == 0

    def test_every_kind_of_entry_is_listed(self, store: Store) -> None:
        bulk = _bulk(store)
        assert list(bulk.entries(Selection())) == []
        entries = [
            make_entry("no vector"),
            make_entry("no vector in another", partition=make_partition("other", model_name="large")),
            make_entry("expired", expires=1.0, vector=_EAST),
            make_entry("in another space", vector=_EAST, space="other/2"),
            make_entry("in another dimension", vector=make_vector(1, 0, 0)),
            make_entry("no usage", usage=None, tags=["ü", ""]),
            make_entry("", body=bytes(range(256)), created=0.0),
        ]
        if isinstance(store, LessonStore):
            entries.append(make_entry("clustered", cluster=_RED))
        bulk.write_many(entries)
        store.block(make_key("asker"), entries[0].key)
        assert _by_key(bulk.entries(Selection())) == _by_key(entries)

    def test_the_list_knows_each_change_at_once(self, store: Store) -> None:
        bulk = _bulk(store)
        entry = make_entry("touched", vector=_EAST)
        bulk.write_many([entry, make_entry("removed", vector=_NORTH)])
        store.touch(entry.key, 99.0)
        store.remove([make_key("removed")])
        expected = replace(entry, expires=99.0)
        if isinstance(store, LessonStore):
            store.join(entry.key, _GREEN)
            expected = replace(expected, cluster=_GREEN)
        assert list(bulk.entries(Selection())) == [expected]


def _bulk(store: Store) -> BulkStore:
    if not isinstance(store, BulkStore):
        skip("the store is no BulkStore")
    return store


def _by_key(entries: Sequence[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.key.digest)
