"""The rules of `aicache.testing`: its fakes do what they are told, and its contract fails stores that break a rule."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest

from aicache import AICacheError, Embedder, QueryTooLongError, Store, StoreError
from aicache._model import Search, Selection
from aicache.stores.base import AsyncBulkStore, BulkStore, LessonStore
from aicache.stores.memory import MemoryStore
from aicache.testing import (
    ChaosStore,
    FailingStore,
    FakeClock,
    FakeEmbedder,
    StoreContract,
    make_entry,
    make_key,
    make_partition,
    make_vector,
)
from aicache.testing._around import StoreAround


def dot(embedder, one, other):
    a, b = embedder.embed([one, other])
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_importing_the_kit_imports_no_test_framework():
    code = "import sys, aicache.testing; print({'pytest', 'hypothesis', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


def test_a_fake_clock_moves_only_when_told():
    clock = FakeClock(wall=100.0)
    assert (clock.wall(), clock.monotonic()) == (100.0, 0.0)
    clock.advance(2.5)
    assert (clock.wall(), clock.monotonic()) == (102.5, 2.5)
    clock.set_wall(50.0)
    assert (clock.wall(), clock.monotonic()) == (50.0, 2.5)
    with pytest.raises(ValueError, match="set_wall"):
        clock.advance(-1)


def test_the_fake_embedder_is_an_embedder_with_unit_vectors_that_never_change():
    embedder = FakeEmbedder(64, fingerprint="mine")
    assert isinstance(embedder, Embedder)
    assert embedder.space == "mine/64"
    for text in ("How do I reset my password?", "", "?!", "数据", "a"):
        (vector,) = embedder.embed([text])
        assert len(vector) == 64
        assert math.hypot(*vector) == pytest.approx(1.0)
        assert FakeEmbedder(64).embed([text]) == [vector]
        assert embedder.vector(text) == make_vector(*vector)
    # Fixed, so that another machine or Python version cannot give other vectors unnoticed.
    assert FakeEmbedder(8).embed(["cache"])[0] == pytest.approx(GOLDEN, abs=1e-6)


GOLDEN = [0.000000, 0.000000, 0.000000, 0.249136, -0.498273, -0.830455, 0.000000, 0.000000]


def test_rewordings_are_near_and_unrelated_texts_far():
    embedder = FakeEmbedder()
    for one, other in (
        ("How do I reset my password?", "how can I reset my password"),
        ("What is the capital of France?", "Please, what's the capital of France?"),
    ):
        assert dot(embedder, one, other) > 0.8
    for one, other in (
        ("How do I reset my password?", "What is the capital of France?"),
        ("Where is my parcel?", "Cancel the subscription"),
        ("", "Cancel the subscription"),
    ):
        assert dot(embedder, one, other) < 0.4


def test_the_fake_embedder_counts_calls_and_texts():
    embedder = FakeEmbedder()
    embedder.embed(["a", "b"])
    embedder.embed(["c"])
    embedder.vector("d")
    assert (embedder.calls, embedder.embedded) == (2, 3)


def test_the_fake_embedder_fails_as_told():
    embedder = FakeEmbedder(4, max_words=3)
    assert len(embedder.embed(["one two three"])) == 1
    with pytest.raises(QueryTooLongError):
        embedder.embed(["short", "one two three four"])
    embedder.fail_with = OSError("gone")
    with pytest.raises(OSError, match="gone"):
        embedder.embed(["a"])
    embedder.fail_with = None
    embedder.returns = "nan"
    assert all(math.isnan(number) for number in embedder.embed(["a"])[0])
    embedder.returns = "zero"
    assert embedder.embed(["a"]) == [[0.0] * 4]
    embedder.returns = "wrong_dimension"
    assert len(embedder.embed(["a"])[0]) == 5


def test_a_failing_store_passes_everything_on_until_told_to_fail():
    store = FailingStore(MemoryStore())
    assert isinstance(store, Store)
    entry = make_entry()
    store.write(entry)
    store.fail("fetch", error=TimeoutError("slow"))
    with pytest.raises(TimeoutError):
        store.fetch(entry.key)
    assert store.size().entries == 1
    store.recover()
    assert store.fetch(entry.key) == entry
    assert store.calls == {"write": 1, "fetch": 2, "size": 1}


def test_a_failing_store_told_no_names_fails_in_every_method_but_close():
    store = FailingStore(MemoryStore(), error=StoreError("down"))
    for call in (
        lambda: store.fetch(make_key()),
        lambda: store.nearest(Search(make_partition(), "fake/2", make_vector(1, 0), 1)),
        lambda: store.write(make_entry()),
        lambda: store.touch(make_key(), None),
        lambda: store.remove([]),
        lambda: store.clear(Selection()),
        lambda: store.similar(Selection(), "fake/2", make_vector(1, 0), 0.5),
        lambda: store.block(make_key(), make_key()),
        lambda: store.sweep(0.0, 1),
        store.size,
        store.epoch,
    ):
        with pytest.raises(AICacheError, match="down"):
            call()
    store.close()
    with pytest.raises(ValueError, match="fetsch"):
        store.fail("fetsch")


class Plain(StoreAround):
    """A store that neither learns nor writes many at once."""

    @classmethod
    def _parts(cls, store):
        return ()

    def _pass(self, method, act, *args, **kwargs):
        return act(*args, **kwargs)


@pytest.mark.parametrize("around", [FailingStore, ChaosStore])
def test_a_store_around_another_can_what_the_other_can(around):
    for inner, more in ((MemoryStore(), True), (Plain(MemoryStore()), False)):
        for store in (around(inner), around(around(inner))):
            assert isinstance(store, around)
            assert type(store).__name__ == around.__name__
            assert isinstance(store, BulkStore) is isinstance(store, LessonStore) is more
            assert isinstance(store, AsyncBulkStore) is (more and around is ChaosStore)
    assert type(around(MemoryStore())) is type(around(MemoryStore()))


def test_a_subclass_may_change_what_the_store_inside_can():
    class Marks(FailingStore):
        def append_lessons(self, log, lessons):
            return super().append_lessons(log, [b"marked", *lessons])

    store = Marks(MemoryStore())
    assert store.append_lessons(b"log", [b"one"]) == 2
    assert store.lessons(b"log", 0).items == (b"marked", b"one")


def test_a_failing_store_fails_in_what_is_more_than_a_store_too():
    store = FailingStore(MemoryStore(), error=StoreError("down"))
    for call in (
        lambda: store.write_many([make_entry()]),
        lambda: store.entries(Selection()),
        lambda: store.append_lessons(b"log", [b"one"]),
        lambda: store.lessons(b"log", 0),
        lambda: store.keep_summary(b"log", 1, b"summary"),
        lambda: store.summary(b"log"),
        lambda: store.forget_lessons(b"log"),
        lambda: store.join(make_key(), b"c" * 16),
    ):
        with pytest.raises(AICacheError, match="down"):
            call()
    store.fail("join")
    assert store.append_lessons(b"log", [b"one"]) == 1
    assert store.calls["append_lessons"] == 2


class TestAPlainStore(StoreContract):
    """What it cannot is skipped, not failed."""

    @pytest.fixture
    def store(self):
        return Plain(MemoryStore())


def test_builders_give_equal_values_for_equal_arguments_and_different_ones_otherwise():
    assert make_entry() == make_entry()
    assert make_partition(tenant="a").id != make_partition(tenant="b").id
    assert make_partition(tenant="a").namespace == make_partition(tenant="b").namespace
    assert make_key("a") != make_key("b")
    assert make_key("a") != make_key("a", partition=make_partition("other"))
    assert make_entry(vector=make_vector(1, 2, 3)).space == "fake/3"
    with pytest.raises(ValueError, match="zero vector"):
        make_vector(0, 0)


class TestAFailingStoreThatDoesNotFail(StoreContract):
    @pytest.fixture
    def store(self):
        return FailingStore(MemoryStore())


class Wrong(FailingStore):
    """A store with one fault; each subclass breaks one sentence of the port."""


class LosesUsage(Wrong):
    def write(self, entry):
        super().write(replace(entry, answer=replace(entry.answer, usage=None)))


class KeepsTheFirst(Wrong):
    def write(self, entry):
        if self.fetch(entry.key) is None:
            super().write(entry)


class HidesExpired(Wrong):
    def fetch(self, key):
        entry = super().fetch(key)
        return None if entry is not None and entry.expires is not None and entry.expires < 1e9 else entry


class IgnoresTheSpace(Wrong):
    def write(self, entry):
        super().write(replace(entry, space=entry.space and "one"))

    def fetch(self, key):
        entry = super().fetch(key)
        return entry and replace(entry, space=entry.space and f"fake/{len(entry.vector) // 4}")

    def nearest(self, search):
        return super().nearest(replace(search, space="one"))

    def similar(self, selection, space, vector, min_score):
        return super().similar(selection, "one", vector, min_score)


class GivesDistances(Wrong):
    def nearest(self, search):
        return [replace(one, score=1 - one.score) for one in super().nearest(search)]


class OneTooMany(Wrong):
    def nearest(self, search):
        return super().nearest(replace(search, k=search.k + 1))


class SweepsAll(Wrong):
    def sweep(self, now, limit):
        return super().sweep(now, 10**9)


class SweepsTooLate(Wrong):
    def sweep(self, now, limit):
        return super().sweep(math.nextafter(now, 0), limit)


class ClearsEverything(Wrong):
    def clear(self, selection, *, dry_run=False):
        return super().clear(Selection(), dry_run=dry_run)


class NeverDryRuns(Wrong):
    def remove(self, keys, *, dry_run=False):
        return super().remove(keys)

    def clear(self, selection, *, dry_run=False):
        return super().clear(selection)


class RemovesOnlyWholeKeys(Wrong):
    def remove(self, keys, *, dry_run=False):
        return super().remove([key for key in keys if len(key.partition.id) > 1], dry_run=dry_run)


class ForgetsWhatWasReported(Wrong):
    def block(self, asker, entry):
        pass


class BlocksForEverybody(Wrong):
    def block(self, asker, entry):
        self._store.remove([entry])


class ListsTheFarToo(Wrong):
    def similar(self, selection, space, vector, min_score):
        return super().similar(selection, space, vector, -1.0)


class ListsFarthestFirst(Wrong):
    def similar(self, selection, space, vector, min_score):
        return super().similar(selection, space, vector, min_score)[::-1]


class ListsEverybodys(Wrong):
    def similar(self, selection, space, vector, min_score):
        return super().similar(Selection(), space, vector, min_score)


class TouchesNothing(Wrong):
    def touch(self, key, expires):
        pass


class MovingEpoch(Wrong):
    def epoch(self):
        return super().epoch() + self.calls["epoch"]


class CountsNothing(Wrong):
    def nearest(self, search):
        return [replace(one, cluster_size=1) for one in super().nearest(search)]


class CountsCandidatesOnly(Wrong):
    def nearest(self, search):
        found = super().nearest(search)
        clusters = [one.entry.cluster for one in found]
        return [
            replace(one, cluster_size=clusters.count(one.entry.cluster) if one.entry.cluster else 1) for one in found
        ]


class ForgetsTheCluster(Wrong):
    def write(self, entry):
        super().write(replace(entry, cluster=None))


class JoinsNothing(Wrong):
    def join(self, key, cluster):
        pass


class JoinRestoresTheLife(Wrong):
    def join(self, key, cluster):
        super().join(key, cluster)
        self.touch(key, None)


class LosesTheLastLesson(Wrong):
    def append_lessons(self, log, lessons):
        return super().append_lessons(log, lessons[:-1]) + 1


class GivesLessonsFromAfter(Wrong):
    def lessons(self, log, after):
        return super().lessons(log, max(after - 1, 0))


class HasOneLog(Wrong):
    def append_lessons(self, log, lessons):
        return super().append_lessons(b"log", lessons)

    def lessons(self, log, after):
        return super().lessons(b"log", after)


class ClearsLessons(Wrong):
    def clear(self, selection, *, dry_run=False):
        self.forget_lessons(b"a log of 16 byte")
        return super().clear(selection, dry_run=dry_run)


class KeepsTheLatestSummary(Wrong):
    def keep_summary(self, log, position, summary):
        lessons = self.lessons(log, 0)
        self.forget_lessons(log)
        super().append_lessons(log, lessons.items)
        super().keep_summary(log, position, summary)


class ForgetsNothing(Wrong):
    def forget_lessons(self, log):
        pass


class WritesTheFirstOfMany(Wrong):
    def write_many(self, entries):
        super().write_many(entries[:1])


class WritesManyBackwards(Wrong):
    def write_many(self, entries):
        super().write_many(entries[::-1])


class ListsAll(Wrong):
    def entries(self, selection):
        return super().entries(Selection())


class ListsWithoutVectors(Wrong):
    def entries(self, selection):
        return [replace(entry, vector=None) for entry in super().entries(selection)]


FAULTS = (
    CountsNothing,
    CountsCandidatesOnly,
    ForgetsTheCluster,
    JoinsNothing,
    JoinRestoresTheLife,
    LosesTheLastLesson,
    GivesLessonsFromAfter,
    HasOneLog,
    ClearsLessons,
    KeepsTheLatestSummary,
    ForgetsNothing,
    WritesTheFirstOfMany,
    WritesManyBackwards,
    ListsAll,
    ListsWithoutVectors,
    LosesUsage,
    KeepsTheFirst,
    HidesExpired,
    IgnoresTheSpace,
    GivesDistances,
    OneTooMany,
    SweepsAll,
    SweepsTooLate,
    ClearsEverything,
    NeverDryRuns,
    RemovesOnlyWholeKeys,
    ForgetsWhatWasReported,
    BlocksForEverybody,
    ListsTheFarToo,
    ListsFarthestFirst,
    ListsEverybodys,
    TouchesNothing,
    MovingEpoch,
)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_contract_fails_a_store_with_this_fault(fault):
    contract = StoreContract()
    failed = []
    for name in dir(contract):
        if name.startswith("test_"):
            try:
                getattr(contract, name)(fault(MemoryStore()))
            except AssertionError:
                failed.append(name)
    assert failed
