"""The specification of a store, as tests: each rule of `aicache.stores.base.Store` is one method."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from aicache._model import CacheKey, Candidate, Entry, Search, Selection, Usage, Vector
from aicache.stores.base import Store
from aicache.testing._builders import make_entry, make_key, make_partition, make_vector
from aicache.testing._contract_bulk import BulkRules
from aicache.testing._contract_learning import ClusterRules, LessonRules
from aicache.testing._contract_removal import SPACE, BlockRules, SelectionRules, found_near

__all__ = ["StoreContract"]

_EAST, _NORTH, _NORTH_EAST, _WEST = make_vector(1, 0), make_vector(0, 1), make_vector(1, 1), make_vector(-1, 0)
_FAR_FUTURE = 4e9


class StoreContract(SelectionRules, BlockRules, BulkRules, ClusterRules, LessonRules):
    """Tests that every store passes. Subclass it and give a `store` fixture: an empty store, closed afterwards.

    The rules of `BulkStore` and `LessonStore` are skipped for a store that is none.

        class TestMyStore(StoreContract):
            @pytest.fixture
            def store(self):
                store = MyStore()
                yield store
                store.close()

    A store whose scores are less exact sets `tolerance`.
    """

    # ------------------------------------------------------------------------------ single entries

    def test_is_a_store(self, store: Store) -> None:
        assert isinstance(store, Store)
        assert store.name
        assert isinstance(store.blocking, bool)

    def test_unknown_key_is_none(self, store: Store) -> None:
        store.write(make_entry("known"))
        assert store.fetch(make_key("unknown")) is None

    def test_a_written_entry_is_read_at_once(self, store: Store) -> None:
        entry = make_entry()
        store.write(entry)
        assert store.fetch(entry.key) == entry

    def test_an_entry_comes_back_as_it_was_written(self, store: Store) -> None:
        for entry in _diverse_entries():
            store.write(entry)
            assert store.fetch(entry.key) == entry, f"not lossless: {entry.query[:40]!r}"
        for entry in _diverse_entries():
            assert store.fetch(entry.key) == entry, f"changed by a later write: {entry.query[:40]!r}"

    def test_writing_a_key_again_replaces_its_entry(self, store: Store) -> None:
        old = make_entry(answer="old", tags=["a", "b"], vector=_EAST, expires=5.0)
        new = make_entry(answer="new", tags=["c"], created=2_000.0)
        store.write(old)
        store.write(new)
        assert store.fetch(new.key) == new
        assert store.size().entries == 1
        assert store.clear(Selection(tags=("a",))) == 0, "the tags of the replaced entry are gone"
        assert store.clear(Selection(tags=("c",))) == 1

    def test_the_same_question_in_two_partitions_is_two_entries(self, store: Store) -> None:
        one = make_entry(answer="one", partition=make_partition("one"))
        two = make_entry(answer="two", partition=make_partition("two"))
        store.write(one)
        store.write(two)
        assert store.fetch(one.key) == one
        assert store.fetch(two.key) == two

    def test_expired_entries_are_still_returned(self, store: Store) -> None:
        entry = make_entry(created=1.0, expires=2.0, vector=_EAST)
        store.write(entry)
        assert store.fetch(entry.key) == entry
        assert found_near(store, _EAST) == [entry]

    # ------------------------------------------------------------------------------ nearest

    def test_nothing_is_near_in_an_empty_store(self, store: Store) -> None:
        assert list(store.nearest(Search(make_partition(), SPACE, _EAST, 5))) == []

    def test_nearest_comes_first_with_its_true_cosine(self, store: Store) -> None:
        for name, vector in (("west", _WEST), ("east", _EAST), ("north", _NORTH), ("north-east", _NORTH_EAST)):
            store.write(make_entry(name, vector=vector))
        found = store.nearest(Search(make_partition(), SPACE, make_vector(1, 0.1), 4))
        assert [candidate.entry.query for candidate in found] == ["east", "north-east", "north", "west"]
        true = (0.9950372, 0.7739573, 0.0995037, -0.9950372)
        assert all(abs(one.score - score) <= self.tolerance for one, score in zip(found, true, strict=True))

    def test_an_equal_vector_scores_one_and_never_more(self, store: Store) -> None:
        for number in range(50):
            vector = make_vector(1, number, number * number)
            store.write(make_entry(f"question {number}", vector=vector))
            score = store.nearest(Search(make_partition(), "fake/3", vector, 1))[0].score
            assert 1 - self.tolerance <= score <= 1

    def test_scores_match_the_dot_product_in_many_dimensions(self, store: Store) -> None:
        chance = random.Random(5)  # noqa: S311 - test vectors, not secrets
        vectors = {f"q{n}": make_vector(*(chance.gauss(0, 1) for _ in range(96))) for n in range(60)}
        for name, vector in vectors.items():
            store.write(make_entry(name, vector=vector))
        query = make_vector(*(chance.gauss(0, 1) for _ in range(96)))
        true = sorted(((_dot(query, vector), name) for name, vector in vectors.items()), reverse=True)
        found = store.nearest(Search(make_partition(), "fake/96", query, 10))
        assert [one.entry.query for one in found] == [name for _, name in true[:10]]
        assert all(abs(one.score - score) <= self.tolerance for one, (score, _) in zip(found, true, strict=False))

    def test_at_most_k_candidates(self, store: Store) -> None:
        for number in range(5):
            store.write(make_entry(f"question {number}", vector=make_vector(1, number)))
        for k in (1, 3, 5, 50):
            assert len(store.nearest(Search(make_partition(), SPACE, _EAST, k))) == min(k, 5)

    def test_below_the_floor_entries_may_be_missing(self, store: Store) -> None:
        for name, vector in (("west", _WEST), ("east", _EAST), ("north", _NORTH), ("north-east", _NORTH_EAST)):
            store.write(make_entry(name, vector=vector))

        def found(floor: float) -> list[str]:
            return [one.entry.query for one in store.nearest(Search(make_partition(), SPACE, _EAST, 4, None, floor))]

        assert found(0.5)[:2] == ["east", "north-east"]
        assert found(0.5) == ["east", "north-east", "north", "west"][: len(found(0.5))]
        assert found(-1.0) == ["east", "north-east", "north", "west"]
        store.remove([make_key("east"), make_key("north-east")])
        assert found(0.5)[:1] in ([], ["north"])
        assert found(-1.0) == ["north", "west"]

    def test_candidates_carry_whole_entries(self, store: Store) -> None:
        entry = make_entry("Wie geht das?", vector=_EAST, tags=["x"], expires=9e9)
        store.write(entry)
        assert found_near(store, _EAST) == [entry]

    def test_an_entry_without_a_vector_is_never_near(self, store: Store) -> None:
        store.write(make_entry("plain"))
        store.write(make_entry("with vector", vector=_EAST))
        assert [entry.query for entry in found_near(store, _EAST)] == ["with vector"]

    def test_nearest_stays_in_the_partition(self, store: Store) -> None:
        one, two = make_partition("one"), make_partition("two")
        store.write(make_entry("same", partition=one, vector=_EAST))
        other = make_entry("other", partition=two, vector=_NORTH)
        store.write(other)
        assert found_near(store, _EAST, partition=two) == [other]
        assert found_near(store, _EAST, partition=make_partition("three")) == []

    def test_nearest_stays_in_the_space(self, store: Store) -> None:
        entry = make_entry("old model", vector=_EAST, space="old/2")
        store.write(entry)
        assert found_near(store, _EAST, space="new/2") == []
        assert found_near(store, _EAST, space="old/2") == [entry]

    def test_nearest_stays_in_the_dimension(self, store: Store) -> None:
        flat = make_entry("flat", vector=_EAST, space="same")
        solid = make_entry("solid", vector=make_vector(1, 0, 0), space="same")
        store.write(flat)
        store.write(solid)
        assert found_near(store, _EAST, space="same") == [flat]
        assert found_near(store, make_vector(0, 0, 1), space="same") == [solid]

    def test_after_a_replacement_only_the_new_entry_is_near(self, store: Store) -> None:
        store.write(make_entry("q", "old", vector=_EAST))
        new = make_entry("q", "new", vector=_NORTH)
        store.write(new)
        assert found_near(store, _EAST) == [new]
        assert abs(store.nearest(Search(make_partition(), SPACE, _EAST, 5))[0].score) <= self.tolerance

    def test_a_replacement_without_a_vector_is_not_near(self, store: Store) -> None:
        store.write(make_entry("q", "old", vector=_EAST))
        store.write(make_entry("q", "new"))
        assert found_near(store, _EAST) == []

    def test_a_replacement_in_another_space_leaves_the_old_space(self, store: Store) -> None:
        store.write(make_entry("q", "old", vector=_EAST, space="old/2"))
        new = make_entry("q", "new", vector=_EAST, space="new/2")
        store.write(new)
        assert found_near(store, _EAST, space="old/2") == []
        assert found_near(store, _EAST, space="new/2") == [new]

    # ------------------------------------------------------------------------------ touch, remove

    def test_touch_sets_when_an_entry_expires_and_nothing_else(self, store: Store) -> None:
        entry = make_entry(expires=10.0, vector=_EAST, tags=["x"])
        store.write(entry)
        store.touch(entry.key, 99.5)
        assert store.fetch(entry.key) == replace(entry, expires=99.5)
        assert found_near(store, _EAST) == [replace(entry, expires=99.5)]
        store.touch(entry.key, None)
        assert store.fetch(entry.key) == replace(entry, expires=None)

    def test_touch_decides_what_a_sweep_removes(self, store: Store) -> None:
        longer, shorter = make_entry("longer", expires=10.0), make_entry("shorter", expires=100.0)
        store.write(longer)
        store.write(shorter)
        store.touch(longer.key, 100.0)
        store.touch(shorter.key, 10.0)
        assert store.sweep(50.0, 10) == 1
        assert store.fetch(longer.key) is not None
        assert store.fetch(shorter.key) is None

    def test_touching_what_is_gone_does_nothing(self, store: Store) -> None:
        store.touch(make_key("gone"), 5.0)
        assert store.fetch(make_key("gone")) is None
        assert store.size().entries == 0

    def test_remove_takes_entries_with_their_vectors(self, store: Store) -> None:
        gone, stays = make_entry("gone", vector=_EAST), make_entry("stays", vector=_NORTH)
        store.write(gone)
        store.write(stays)
        assert store.remove([gone.key]) == 1
        assert store.fetch(gone.key) is None
        assert found_near(store, _EAST) == [stays]

    def test_remove_counts_only_what_was_there(self, store: Store) -> None:
        entries = [make_entry(f"q{number}") for number in range(3)]
        for entry in entries:
            store.write(entry)
        assert store.remove([]) == 0
        assert store.remove([entries[0].key, make_key("never"), entries[1].key]) == 2
        assert store.remove([entries[0].key]) == 0
        assert store.remove([entries[2].key, entries[2].key]) == 1, "a key given twice counts once"
        assert store.size().entries == 0

    def test_an_entry_is_removed_by_its_id(self, store: Store) -> None:
        gone, stays = make_entry("gone", vector=_EAST), make_entry("stays", vector=_NORTH)
        for entry in (gone, stays):
            store.write(entry)
        by_id = CacheKey.of_id(gone.id)
        assert store.remove([by_id], dry_run=True) == 1
        assert store.remove([by_id]) == 1
        assert store.remove([by_id], dry_run=True) == store.remove([by_id]) == 0
        assert store.fetch(gone.key) is None
        assert found_near(store, _EAST) == [stays]

    def test_a_dry_run_of_remove_counts_and_removes_nothing(self, store: Store) -> None:
        entries = [make_entry(f"q{number}", vector=make_vector(1, number), tags=["red"]) for number in range(3)]
        for entry in entries:
            store.write(entry)
        keys = [entries[0].key, make_key("never"), entries[1].key, entries[0].key]
        assert store.remove([], dry_run=True) == 0
        assert store.remove(keys, dry_run=True) == 2
        assert [store.fetch(entry.key) for entry in entries] == entries == found_near(store, _EAST)
        assert store.size().entries == 3
        assert store.clear(Selection(tags=("red",)), dry_run=True) == 3
        assert store.remove(keys) == 2

    def test_an_entry_can_be_written_again_after_its_removal(self, store: Store) -> None:
        entry = make_entry(vector=_EAST)
        store.write(entry)
        store.remove([entry.key])
        store.write(entry)
        assert store.fetch(entry.key) == entry
        assert found_near(store, _EAST) == [entry]

    # ------------------------------------------------------------------------------ sweep, size

    def test_sweep_removes_what_expires_now_or_before(self, store: Store) -> None:
        before, now = make_entry("before", expires=99.0, vector=_EAST), make_entry("now", expires=100.0)
        after, never = make_entry("after", expires=100.001), make_entry("never")
        for entry in (before, now, after, never):
            store.write(entry)
        assert store.sweep(100.0, 10) == 2
        assert [store.fetch(entry.key) for entry in (before, now, after, never)] == [None, None, after, never]
        assert found_near(store, _EAST) == []
        assert store.sweep(100.0, 10) == 0

    def test_sweep_removes_at_most_the_limit(self, store: Store) -> None:
        for number in range(5):
            store.write(make_entry(f"q{number}", expires=10.0))
        assert store.sweep(50.0, 0) == 0
        assert store.sweep(50.0, 2) == 2
        assert store.size().entries == 3
        assert store.sweep(50.0, 100) == 3

    def test_size_follows_the_entries(self, store: Store) -> None:
        assert store.size().entries == 0
        # Bytes that do not shrink, for a store may compress.
        entries = [make_entry(f"q{number}", body=random.Random(number).randbytes(2_000)) for number in range(4)]  # noqa: S311
        for entry in entries:
            store.write(entry)
        full = store.size()
        assert full.entries == 4
        assert full.bytes >= 4 * 2_000
        store.remove([entries[0].key])
        assert store.size().entries == 3
        store.clear(Selection())
        assert store.size().entries == 0

    # ------------------------------------------------------------------------------ the rest

    def test_epoch_stays_while_nobody_else_writes(self, store: Store) -> None:
        first = store.epoch()
        entry = make_entry(expires=1.0, tags=["x"])
        store.write(entry)
        store.write(replace(entry, tags=()))
        store.touch(entry.key, 2.0)
        store.clear(Selection(), dry_run=True)
        store.remove([entry.key], dry_run=True)
        store.remove([entry.key])
        store.block(make_key("asker"), entry.key)
        store.write(entry)
        store.sweep(_FAR_FUTURE, 10)
        store.write(entry)
        store.clear(Selection())
        assert store.epoch() == first

    def test_close_twice_does_nothing(self, store: Store) -> None:
        store.write(make_entry())
        store.close()
        store.close()

    def test_threads_lose_nothing_and_mix_nothing(self, store: Store) -> None:
        with ThreadPoolExecutor(max_workers=8) as pool:
            expected = [item for part in pool.map(lambda seat: _work(store, seat), range(8)) for item in part]
        assert store.size().entries == sum(entry is not None for _, entry in expected)
        for key, entry in expected:
            assert store.fetch(key) == entry
        for seat in range(8):
            partition = make_partition(f"thread {seat}")
            near = {one.entry.key.digest for one in store.nearest(Search(partition, SPACE, _EAST, 1_000))}
            assert near == {key.digest for key, entry in expected if entry and key.partition == partition}


def _dot(one: Vector, other: Vector) -> float:
    return sum(a * b for a, b in zip(_floats(one), _floats(other), strict=True))


def _floats(vector: Vector) -> Sequence[float]:
    return memoryview(vector).cast("f")


def _diverse_entries() -> list[Entry]:
    every_byte = bytes(range(256))
    return [
        make_entry("plain"),
        make_entry("", "answer to an empty question"),
        make_entry("Zażółć gęślą jaźń? 你好 🙂 \x00 \u2028 'quoted' \"twice\" \\", "naïve"),
        make_entry("no usage", usage=None),
        make_entry("zero usage", usage=Usage(0, 0)),
        make_entry("large usage", usage=Usage(2**40, 2**33)),
        make_entry("bytes", body=every_byte),
        make_entry("no body", body=b""),
        make_entry("a megabyte", body=hashlib.sha256(b"seed").digest() * 32_768),
        make_entry("vector", vector=make_vector(*range(1, 385))),
        make_entry("small vector", vector=_NORTH_EAST, space="a/model, int8: prefix 'query: '/2"),
        make_entry("tags", tags=["one", "zwei ü", "a,b", "", "x" * 300, "🙂"]),
        make_entry("times", created=1_763_000_000.123456, expires=1_763_000_000.123457),
        make_entry("zero times", created=0.0, expires=0.0),
        make_entry("x" * 20_000, "to a long question"),
        make_entry("tenants", partition=make_partition(namespace="", tenant="", model="")),
        make_entry("named model", partition=make_partition(model_name="gpt-4o-2024-08-06")),
    ]


def _work(store: Store, seat: int) -> list[tuple[CacheKey, Entry | None]]:
    """Mixed operations of one thread on its own partition; what must be there in the end."""
    chance = random.Random(seat)  # noqa: S311 - a fixed order of operations, not a secret
    partition = make_partition(f"thread {seat}")
    model: dict[CacheKey, Entry | None] = {}
    for step in range(120):
        query = f"question {chance.randrange(25)}"
        key = make_key(query, partition=partition)
        match chance.randrange(6):
            case 0 | 1 | 2:
                vector = make_vector(1, chance.random())
                entry = make_entry(query, f"answer {seat}/{step}", key=key, vector=vector, expires=_FAR_FUTURE)
                store.write(entry)
                model[key] = entry
            case 3:
                known = model.get(key)
                assert store.remove([key]) == (known is not None)
                model[key] = None
            case 4:
                assert store.fetch(key) == model.get(key)
            case _:
                _check_neighbours(store.nearest(Search(partition, SPACE, _EAST, 5)), model)
    return list(model.items())


def _check_neighbours(found: Sequence[Candidate], model: dict[CacheKey, Entry | None]) -> None:
    assert len(found) == min(5, sum(entry is not None for entry in model.values()))
    for candidate in found:
        assert candidate.entry == model.get(candidate.entry.key)
