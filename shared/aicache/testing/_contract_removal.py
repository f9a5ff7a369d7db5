"""The part of a store's specification that is about taking answers away: `clear`, `similar` and `block`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from aicache._model import CacheKey, Entry, Partition, Search, Selection, Vector
from aicache.stores.base import Store
from aicache.testing._builders import make_entry, make_key, make_partition, make_vector

__all__ = [
    "SPACE",
    "BlockRules",
    "SelectionRules",
    "entries_to_select_from",
    "found_near",
    "selected",
    "selections",
]

SPACE = "fake/2"
_EAST, _NORTH, _WEST = make_vector(1, 0), make_vector(0, 1), make_vector(-1, 0)
_BOUND = 1_763_000_000.25
"""A time with a fraction that a float has exactly."""


def selected(entry: Entry, selection: Selection) -> bool:
    """Whether the entry is of the selection, by the words of `Selection`."""
    home = entry.key.partition
    return (
        selection.namespace in (None, home.namespace)
        and selection.tenant in (None, home.tenant)
        and selection.model in (None, home.model)
        and selection.model_name in (None, home.model_name)
        and set(selection.tags) <= set(entry.tags)
        and (selection.written_before is None or entry.created < selection.written_before)
    )


def found_near(store: Store, vector: Vector, *, partition: Partition | None = None, space: str = SPACE) -> list[Entry]:
    """The entries of a partition, nearest first."""
    return [one.entry for one in store.nearest(Search(partition or make_partition(), space, vector, 50))]


class SelectionRules:
    """`clear` with and without a dry run, and `similar`."""

    tolerance: float = 1e-5
    """How far a score may be from the true cosine."""

    # ------------------------------------------------------------------------------ clear

    def test_clear_removes_the_selection_and_nothing_else(self, store: Store) -> None:
        for name, selection in selections().items():
            entries = entries_to_select_from()
            for entry in entries:
                store.write(entry)
            chosen = {entry.key for entry in entries if selected(entry, selection)}
            assert 0 < len(chosen) <= len(entries), name
            assert store.clear(selection) == len(chosen), name
            for entry in entries:
                assert store.fetch(entry.key) == (None if entry.key in chosen else entry), name
                near = found_near(store, _EAST, partition=entry.key.partition)
                assert (entry in near) == (entry.key not in chosen), name

    def test_a_dry_run_of_clear_counts_the_same_and_changes_nothing(self, store: Store) -> None:
        entries = entries_to_select_from()
        for entry in entries:
            store.write(entry)
        for name, selection in selections().items():
            chosen = [entry for entry in entries if selected(entry, selection)]
            assert store.clear(selection, dry_run=True) == len(chosen), name
        assert store.size().entries == len(entries)
        for entry in entries:
            assert store.fetch(entry.key) == entry
            assert entry in found_near(store, _EAST, partition=entry.key.partition)
        assert store.clear(Selection()) == len(entries)

    def test_clear_of_an_unknown_selection_removes_nothing(self, store: Store) -> None:
        store.write(make_entry(tags=["red"], partition=make_partition(model_name="large")))
        for selection in (
            Selection(namespace=b"unknown"),
            Selection(tenant=b"unknown"),
            Selection(model=b"unknown"),
            Selection(model_name=b"unknown"),
            Selection(model_name=b""),
            Selection(tags=("re",)),
            Selection(tags=("",)),
            Selection(tags=("red%",)),
            Selection(tags=("RED",)),
            Selection(tags=("red", "blue")),
            Selection(written_before=0.0),
        ):
            assert store.clear(selection, dry_run=True) == 0
            assert store.clear(selection) == 0
        assert store.size().entries == 1

    def test_clear_before_a_time_spares_what_was_written_just_then(self, store: Store) -> None:
        before, then, after = (
            make_entry(name, created=created)
            for name, created in (("before", _BOUND - 0.25), ("then", _BOUND), ("after", _BOUND + 0.25))
        )
        for entry in (before, then, after):
            store.write(entry)
        assert store.clear(Selection(written_before=_BOUND), dry_run=True) == 1
        assert store.clear(Selection(written_before=_BOUND)) == 1
        assert [store.fetch(entry.key) for entry in (before, then, after)] == [None, then, after]

    def test_an_entry_written_again_counts_with_its_new_time_and_a_touch_changes_none(self, store: Store) -> None:
        again, touched = make_entry("again", created=1.0), make_entry("touched", created=1.0)
        for entry in (again, touched, replace(again, created=9.0)):
            store.write(entry)
        store.touch(touched.key, 100.0)
        assert store.clear(Selection(written_before=9.0)) == 1
        assert store.fetch(touched.key) is None

    def test_a_tag_given_twice_in_a_selection_is_one_tag(self, store: Store) -> None:
        store.write(make_entry("tagged", tags=["red", "red"]))
        store.write(make_entry("other"))
        assert store.clear(Selection(tags=("red", "red"))) == 1
        assert store.size().entries == 1

    # ------------------------------------------------------------------------------ similar

    def test_nothing_is_similar_in_an_empty_store(self, store: Store) -> None:
        assert list(store.similar(Selection(), SPACE, _EAST, -1.0)) == []

    def test_similar_lists_entries_of_all_partitions_nearest_first(self, store: Store) -> None:
        homes = [make_partition("one"), make_partition("two", tenant="other"), make_partition("three", model="other")]
        entries = [
            make_entry(f"question {number}", partition=homes[number % 3], vector=make_vector(1, number / 10))
            for number in range(9)
        ]
        for entry in reversed(entries):
            store.write(entry)
        listed = store.similar(Selection(), SPACE, _EAST, 0.5)
        assert [one.query for one in listed] == [entry.query for entry in entries]
        assert [one.key.id for one in listed] == [entry.id for entry in entries]
        for number, one in enumerate(listed):
            assert abs(one.score - 1 / (1 + (number / 10) ** 2) ** 0.5) <= self.tolerance

    def test_similar_lists_what_is_at_least_as_close_as_asked(self, store: Store) -> None:
        store.write(make_entry("east", vector=_EAST))
        store.write(make_entry("between", vector=make_vector(0.6, 0.8)))
        store.write(make_entry("west", vector=_WEST))
        for min_score, expected in (
            (1.0 - 2 * self.tolerance, ["east"]),
            (0.6 + 2 * self.tolerance, ["east"]),
            (0.6 - 2 * self.tolerance, ["east", "between"]),
            (0.0, ["east", "between"]),
            (-1.0 + 2 * self.tolerance, ["east", "between"]),
            (-1.0, ["east", "between", "west"]),
        ):
            assert [one.query for one in store.similar(Selection(), SPACE, _EAST, min_score)] == expected

    def test_similar_stays_in_the_selection(self, store: Store) -> None:
        entries = entries_to_select_from()
        for entry in entries:
            store.write(entry)
        for name, selection in selections().items():
            listed = [one.key.id for one in store.similar(selection, SPACE, _EAST, -1.0)]
            assert sorted(listed) == sorted(entry.id for entry in entries if selected(entry, selection)), name

    def test_similar_stays_in_the_space_and_the_dimension(self, store: Store) -> None:
        for entry in (
            make_entry("meant", vector=_EAST),
            make_entry("other space", vector=_EAST, space="other/2"),
            make_entry("other dimension", vector=make_vector(1, 0, 0), space=SPACE),
            make_entry("no vector"),
        ):
            store.write(entry)
        assert [one.query for one in store.similar(Selection(), SPACE, _EAST, -1.0)] == ["meant"]
        assert list(store.similar(Selection(), "unknown/2", _EAST, -1.0)) == []

    def test_similar_lists_expired_entries_with_what_a_person_wants_to_know(self, store: Store) -> None:
        entry = make_entry("Wie geht das? 🙂", created=_BOUND, expires=_BOUND + 1, vector=_EAST, tags=["red"])
        store.write(entry)
        (one,) = store.similar(Selection(), SPACE, _EAST, 0.9)
        assert (one.query, one.created, one.key.id) == (entry.query, _BOUND, entry.id)
        assert 1 - self.tolerance <= one.score <= 1

    def test_what_similar_lists_can_be_removed(self, store: Store) -> None:
        homes = [make_partition("one"), make_partition("two", namespace="other")]
        for home in homes:
            store.write(make_entry("refund", partition=home, vector=_EAST))
            store.write(make_entry("opening hours", partition=home, vector=_NORTH))
        keys = [one.key for one in store.similar(Selection(), SPACE, _EAST, 0.9)]
        assert store.remove(keys, dry_run=True) == 2
        assert store.remove(keys) == 2
        assert list(store.similar(Selection(), SPACE, _EAST, 0.9)) == []
        assert [one.query for home in homes for one in found_near(store, _EAST, partition=home)] == [
            "opening hours"
        ] * 2

    def test_similar_knows_each_change_at_once(self, store: Store) -> None:
        entry = make_entry(vector=_EAST)
        store.write(entry)
        store.write(replace(entry, vector=_NORTH))
        assert list(store.similar(Selection(), SPACE, _EAST, 0.9)) == []
        assert len(store.similar(Selection(), SPACE, _NORTH, 0.9)) == 1
        store.write(replace(entry, vector=None, space=None))
        assert list(store.similar(Selection(), SPACE, _NORTH, -1.0)) == []

    def test_similar_lists_all_of_many(self, store: Store) -> None:
        homes = [make_partition(f"conversation {number}") for number in range(7)]
        for number in range(400):
            vector = make_vector(1, number / 400) if number % 2 else make_vector(-1, number / 400)
            store.write(make_entry(f"q{number}", partition=homes[number % 7], vector=vector))
        listed = store.similar(Selection(), SPACE, _EAST, 0.5)
        assert {one.query for one in listed} == {f"q{number}" for number in range(1, 400, 2)}
        assert len(listed) == 200
        assert [one.score for one in listed] == sorted((one.score for one in listed), reverse=True)


class BlockRules:
    """`block`: an entry that was reported wrong for a question."""

    def test_a_blocked_entry_is_never_near_its_asker_again(self, store: Store) -> None:
        wrong, right = make_entry("wrong", vector=_EAST), make_entry("right", vector=_NORTH)
        for entry in (wrong, right):
            store.write(entry)
        asker = make_key("asker")
        assert _found_for(store, asker) == [wrong, right]
        store.block(asker, wrong.key)
        assert _found_for(store, asker) == [right]

    def test_a_block_is_about_one_pair_only(self, store: Store) -> None:
        wrong = make_entry("wrong", vector=_EAST)
        store.write(wrong)
        store.block(make_key("asker"), wrong.key)
        assert _found_for(store, make_key("another")) == [wrong]
        assert _found_for(store, wrong.key) == [wrong], "the pair is not the same the other way round"
        assert found_near(store, _EAST) == [wrong], "nobody in particular asks"
        assert store.fetch(wrong.key) == wrong
        assert store.size().entries == 1
        assert [one.query for one in store.similar(Selection(), SPACE, _EAST, 0.9)] == ["wrong"]

    def test_a_block_outlives_the_entry_and_holds_for_the_next_one_of_its_key(self, store: Store) -> None:
        wrong, asker = make_entry("wrong", "old", vector=_EAST), make_key("asker")
        store.write(wrong)
        store.block(asker, wrong.key)
        removals: list[Callable[[], object]] = [
            lambda: None,
            lambda: store.remove([wrong.key]),
            lambda: store.clear(Selection()),
            lambda: store.clear(Selection(namespace=wrong.key.partition.namespace)),
            lambda: store.sweep(4e9, 10),
        ]
        for remove in removals:
            remove()
            again = make_entry("wrong", "new", vector=_EAST, expires=3e9)
            store.write(again)
            assert _found_for(store, asker) == []
            assert found_near(store, _EAST) == [again]

    def test_as_many_candidates_come_as_if_the_blocked_ones_were_not_there(self, store: Store) -> None:
        asker = make_key("asker")
        for many in (12, 120):
            home = make_partition(f"{many} questions")
            entries = [
                make_entry(f"q{number}", partition=home, vector=make_vector(1, number / 10)) for number in range(many)
            ]
            for entry in entries:
                store.write(entry)
            for entry in entries[:5] + entries[6:8]:
                store.block(asker, entry.key)
            for k in (1, 2, 4):
                expected = [entries[5], *entries[8:]][:k]
                assert [one.entry for one in store.nearest(Search(home, SPACE, _EAST, k, asker))] == expected
            assert len(store.nearest(Search(home, SPACE, _EAST, many, asker))) == many - 7

    def test_blocking_twice_does_no_harm(self, store: Store) -> None:
        wrong, right = make_entry("wrong", vector=_EAST), make_entry("right", vector=_NORTH)
        for entry in (wrong, right):
            store.write(entry)
        for _ in range(2):
            store.block(make_key("asker"), wrong.key)
        assert _found_for(store, make_key("asker")) == [right]

    def test_what_is_blocked_before_it_is_there_is_blocked_when_it_comes(self, store: Store) -> None:
        late = make_entry("late", vector=_EAST)
        store.block(make_key("asker"), late.key)
        assert store.size().entries == 0
        assert store.fetch(late.key) is None
        store.write(late)
        assert _found_for(store, make_key("asker")) == []
        assert found_near(store, _EAST) == [late]

    def test_a_pair_is_blocked_by_its_ids(self, store: Store) -> None:
        wrong, right = make_entry("wrong", vector=_EAST), make_entry("right", vector=_NORTH)
        for entry in (wrong, right):
            store.write(entry)
        asker = make_key("asker")
        store.block(CacheKey.of_id(asker.id), CacheKey.of_id(wrong.id))
        assert _found_for(store, asker) == [right]

    def test_one_asker_may_have_many_blocked_entries(self, store: Store) -> None:
        entries = [make_entry(f"q{number}", vector=make_vector(1, number)) for number in range(40)]
        for entry in entries:
            store.write(entry)
            store.block(make_key("asker"), entry.key)
        assert _found_for(store, make_key("asker")) == []
        assert len(_found_for(store, make_key("another"))) == 40


def _found_for(store: Store, asker: CacheKey) -> list[Entry]:
    return [one.entry for one in store.nearest(Search(asker.partition, SPACE, _EAST, 50, asker))]


def selections() -> dict[str, Selection]:
    """One of every kind, by what it selects by."""
    home = make_partition("p", model_name="large")
    return {
        "namespace": Selection(namespace=home.namespace),
        "tenant": Selection(tenant=home.tenant),
        "model": Selection(model=home.model),
        "model name": Selection(model_name=home.model_name),
        "no model name": Selection(model_name=b""),
        "tag": Selection(tags=("red",)),
        "both tags": Selection(tags=("red", "blue")),
        "both tags, the other way round": Selection(tags=("blue", "red")),
        "time": Selection(written_before=_BOUND + 2),
        "tag in a namespace": Selection(namespace=home.namespace, tags=("red",)),
        "tenant of a model": Selection(tenant=home.tenant, model=home.model),
        "tenant of a model name": Selection(tenant=home.tenant, model_name=home.model_name),
        "time and tenant": Selection(tenant=home.tenant, written_before=_BOUND + 3),
        "time and tags": Selection(tags=("red", "blue"), written_before=_BOUND + 3),
        "all at once": Selection(
            namespace=home.namespace,
            tenant=home.tenant,
            model=home.model,
            model_name=home.model_name,
            tags=("red",),
            written_before=_BOUND + 1,
        ),
        "everything": Selection(),
    }


def entries_to_select_from() -> list[Entry]:
    """Some that each of `selections` takes, and some that it leaves."""
    partitions = [
        make_partition("p", model_name="large"),
        make_partition("p", model_name="large", namespace="other"),
        make_partition("p", model_name="large", tenant="other"),
        make_partition("p", model_name="large", model="other"),
        make_partition("p", model_name="small"),
        make_partition("another"),
    ]
    return [
        make_entry(
            f"question {number}",
            partition=partition,
            vector=make_vector(1, number),
            created=_BOUND + number,
            tags=tags,
        )
        for partition in partitions
        for number, tags in enumerate((["red"], ["blue"], ["red", "blue"], ["redder"], []))
    ]
