"""`MemoryStore` fulfils the store contract, and the rules of its own: bounds, indexes, imports."""

import random
import subprocess
import sys
from dataclasses import replace

import pytest

from aicache._errors import ConfigurationError
from aicache._model import Search, Selection
from aicache.stores.base import Lessons
from aicache.stores.memory import MemoryStore
from aicache.testing import StoreContract, make_entry, make_key, make_partition, make_vector


@pytest.fixture
def store():
    store = MemoryStore()
    yield store
    store.close()


class TestMemoryStore(StoreContract):
    """The contract, as a user would run it."""


class TestMemoryStoreWithOtherEviction(StoreContract):
    @pytest.fixture(params=["lru", "lfu", "arc"])
    def store(self, request):
        store = MemoryStore(eviction=request.param)
        yield store
        store.close()


def fill(store, number, *, partition=None, start=0):
    entries = [
        make_entry(f"question {n}", f"answer {n}", partition=partition, vector=make_vector(1, n / 10))
        for n in range(start, start + number)
    ]
    for entry in entries:
        store.write(entry)
    return entries


def test_name_and_nature(store):
    assert store.name == "memory"
    assert store.blocking is False
    assert store.epoch() == 0


def test_a_full_store_holds_the_bound_and_finds_only_what_it_holds():
    store = MemoryStore(max_entries=100)
    entries = fill(store, 400)
    held = {entry.key for entry in entries if store.fetch(entry.key) is not None}
    assert len(held) == store.size().entries == 100
    near = store.nearest(Search(make_partition(), "fake/2", make_vector(1, 1), 400))
    assert {candidate.entry.key for candidate in near} == held


def test_a_store_full_of_bytes_holds_the_bound():
    store = MemoryStore(max_bytes=50_000)
    for number in range(100):
        store.write(make_entry(f"question {number}", body=b"x" * 2_000, vector=make_vector(1, number)))
        assert store.size().bytes <= 50_000
    held = store.size().entries
    assert 10 < held < 25
    assert len(store.nearest(Search(make_partition(), "fake/2", make_vector(1, 1), 400))) == held


def test_an_entry_larger_than_the_store_is_not_kept_and_takes_its_outdated_predecessor_along():
    store = MemoryStore(max_bytes=5_000)
    store.write(make_entry(vector=make_vector(1, 0)))
    store.write(make_entry("other", vector=make_vector(1, 0)))
    store.write(make_entry(body=b"x" * 5_000, vector=make_vector(1, 0)))
    assert store.fetch(make_key()) is None
    near = store.nearest(Search(make_partition(), "fake/2", make_vector(1, 0), 5))
    assert [candidate.entry.query for candidate in near] == ["other"]


def test_the_nearest_entry_counts_as_used():
    store = MemoryStore(max_entries=4, eviction="lru")
    for number in range(4):
        store.write(make_entry(f"question {number}", vector=make_vector(1, number)))
    assert store.nearest(Search(make_partition(), "fake/2", make_vector(1, 0), 2))[0].entry.query == "question 0"
    for number in range(4, 7):
        store.write(make_entry(f"question {number}", vector=make_vector(1, number)))
    near = store.nearest(Search(make_partition(), "fake/2", make_vector(1, 0), 9))
    assert [candidate.entry.query for candidate in near] == ["question 0", "question 4", "question 5", "question 6"]


@pytest.mark.parametrize("number", [64, 65, 300, 5_000])
def test_neighbours_are_true_at_every_size_of_a_partition(store, number):
    chance = random.Random(number)
    vectors = [make_vector(*(chance.gauss(0, 1) for _ in range(16))) for _ in range(number)]
    for n, vector in enumerate(vectors):
        store.write(make_entry(f"question {n}", vector=vector))
    for wanted in (0, 7, number - 1):
        near = store.nearest(Search(make_partition(), "fake/16", vectors[wanted], 3))
        assert near[0].entry.query == f"question {wanted}"
        assert near[0].score == pytest.approx(1.0, abs=1e-6)
        assert [one.score for one in near] == sorted((one.score for one in near), reverse=True)


def test_a_partition_that_shrinks_and_grows_again_finds_what_it_holds(store):
    entries = fill(store, 200)
    store.remove([entry.key for entry in entries[:190]])
    near = store.nearest(Search(make_partition(), "fake/2", make_vector(1, 0), 50))
    assert {one.entry.key for one in near} == {entry.key for entry in entries[190:]}
    fill(store, 200)
    assert len(store.nearest(Search(make_partition(), "fake/2", make_vector(1, 0), 1_000))) == 200


def test_entries_without_a_usable_vector_are_matched_exactly_only(store):
    nan = b"\x00\x00\xc0\x7f" * 2
    for number, vector in enumerate((nan, b"\x00" * 8, b"\x00" * 7, b"", make_vector(1, 0) + b"\x00")):
        entry = make_entry(f"damaged {number}", vector=vector, space="fake/2")
        store.write(entry)
        assert store.fetch(entry.key) == entry
        store.write(replace(entry, created=5.0))
    good = make_entry("good", vector=make_vector(1, 0))
    store.write(good)
    assert [one.entry for one in store.nearest(Search(make_partition(), "fake/2", make_vector(1, 0), 9))] == [good]
    assert store.clear(Selection()) == 6


def test_a_vector_without_a_space_is_not_compared(store):
    entry = replace(make_entry(vector=make_vector(1, 0)), space=None)
    store.write(entry)
    assert store.fetch(entry.key) == entry
    assert store.nearest(Search(make_partition(), "fake/2", make_vector(1, 0), 9)) == []


def test_similar_leaves_out_what_has_no_usable_vector(store):
    for number, vector in enumerate((b"\x00\x00\xc0\x7f" * 2, b"\x00" * 8, b"", make_vector(1, 0))):
        store.write(make_entry(f"q{number}", vector=vector, space="fake/2"))
    assert [one.query for one in store.similar(Selection(), "fake/2", make_vector(1, 0), -1.0)] == ["q3"]
    for vector in (b"", b"\x00" * 7, b"\x00" * 8):
        assert list(store.similar(Selection(), "fake/2", vector, -1.0)) == []


def test_similar_finds_an_equal_vector_at_a_score_of_one(store):
    chance = random.Random(1)
    vectors = [make_vector(*(chance.gauss(0, 1) for _ in range(48))) for _ in range(2_500)]
    for number, vector in enumerate(vectors):
        store.write(make_entry(f"q{number}", partition=make_partition(f"{number % 9}"), vector=vector))
    for number in range(0, 2_500, 25):
        (one,) = store.similar(Selection(), "fake/48", vectors[number], 1.0)
        assert one.query == f"q{number}"


def test_the_last_ten_thousand_blocked_pairs_are_kept(store):
    entries = fill(store, 3)
    askers = [make_key("first"), *(make_key(f"asker {number}") for number in range(9_999)), make_key("last")]

    def count(asker):
        return len(store.nearest(Search(make_partition(), "fake/2", make_vector(1, 0), 9, asker)))

    store.block(askers[0], entries[1].key)
    for asker in askers[:-1]:
        store.block(asker, entries[0].key)
    assert [count(asker) for asker in askers[:2]] == [2, 2], "one pair of the first asker had to go"
    store.block(askers[-1], entries[0].key)
    assert [count(asker) for asker in (askers[0], askers[1], askers[-1])] == [3, 2, 2]


@pytest.mark.parametrize("eviction", ["lru", "lfu", "arc", "w-tinylfu"])
def test_what_is_evicted_or_refused_counts_no_longer(eviction):
    store = MemoryStore(max_entries=40, max_bytes=80_000, eviction=eviction)
    clusters = [bytes([number]) * 16 for number in range(3)]
    chance = random.Random(4)
    for number in range(400):
        body = b"x" * chance.choice([10, 500, 5_000, 90_000])
        vector = make_vector(1, number % 90)
        store.write(make_entry(f"q{number % 90}", body=body, vector=vector, cluster=chance.choice([None, *clusters])))
        store.join(make_key(f"q{chance.randrange(90)}"), chance.choice(clusters))
        if number % 40 == 0:
            near = store.nearest(Search(make_partition(), "fake/2", make_vector(1, 0), 100))
            held = [one.entry.cluster for one in near]
            assert len(near) == store.size().entries
            assert all(one.cluster_size == (held.count(one.entry.cluster) if one.entry.cluster else 1) for one in near)


def test_exactly_the_last_lessons_are_kept_and_none_counts_towards_a_bound():
    store = MemoryStore(max_entries=1, max_bytes=2_000)
    store.write(make_entry())
    assert store.append_lessons(b"log", [b"%d" % number for number in range(1, 5_001)]) == 5_000
    assert store.append_lessons(b"log", [b"5001"]) == 5_001
    assert store.lessons(b"log", 0) == Lessons(906, tuple(b"%d" % number for number in range(906, 5_002)))
    assert store.size().entries == 1


def test_a_closed_store_has_forgotten_what_it_learned(store):
    store.append_lessons(b"log", [b"one"])
    store.keep_summary(b"log", 1, b"summary")
    store.close()
    assert store.lessons(b"log", 0) == Lessons(1, ())
    assert store.summary(b"log") is None


def test_many_entries_larger_than_the_store_do_not_cost_the_others():
    store = MemoryStore(max_bytes=5_000)
    store.write_many([make_entry("a"), make_entry("b", body=b"x" * 5_000), make_entry("c")])
    assert {entry.query for entry in store.entries(Selection())} == {"a", "c"}


def test_a_closed_store_has_forgotten_what_was_blocked(store):
    entry = fill(store, 1)[0]
    store.block(make_key("asker"), entry.key)
    store.close()
    store.write(entry)
    assert len(store.nearest(Search(make_partition(), "fake/2", make_vector(1, 0), 1, make_key("asker")))) == 1


def test_no_candidates_are_asked_for_none_come(store):
    fill(store, 3)
    assert store.nearest(Search(make_partition(), "fake/2", make_vector(1, 0), 0)) == []


def test_a_closed_store_is_empty(store):
    entry = fill(store, 1)[0]
    store.close()
    assert store.fetch(entry.key) is None
    assert store.nearest(Search(make_partition(), "fake/2", make_vector(1, 0), 1)) == []


@pytest.mark.parametrize("option", [{"max_entries": 0}, {"max_bytes": 0}, {"eviction": "fifo"}])
def test_wrong_options_are_named(option):
    with pytest.raises(ConfigurationError, match=f"^{next(iter(option))}: "):
        MemoryStore(**option)


def test_numpy_is_imported_only_for_vectors():
    code = """
import sys
from aicache._model import Search
from aicache.stores.memory import MemoryStore
from aicache.testing import make_entry, make_partition, make_vector
store = MemoryStore()
store.write(make_entry())
store.nearest(Search(make_partition(), "fake/2", make_vector(1, 0), 3))
assert "numpy" not in sys.modules and "pytest" not in sys.modules
store.write(make_entry(vector=make_vector(1, 0)))
assert "numpy" in sys.modules and "usearch" not in sys.modules
print("good")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "good\n", done.stderr


def test_without_numpy_an_entry_with_a_vector_is_refused_and_not_half_stored():
    code = """
import sys
sys.modules["numpy"] = None
from aicache._errors import MissingExtraError
from aicache.stores.memory import MemoryStore
from aicache.testing import make_entry, make_vector
store = MemoryStore()
try:
    store.write(make_entry(vector=make_vector(1, 0)))
except MissingExtraError as error:
    print(error.extra, store.size().entries)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "onnx 0\n", done.stderr
