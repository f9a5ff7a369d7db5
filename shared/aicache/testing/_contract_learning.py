"""The part of a store's specification that is about learning: clusters and logs of lessons.

A store need not be a `LessonStore`; then all of it is skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from aicache._model import Search, Selection, Usage
from aicache.stores.base import LESSONS_KEPT, Lessons, LessonStore, Store
from aicache.testing._builders import make_entry, make_key, make_partition, make_vector
from aicache.testing._contract_bulk import skip
from aicache.testing._contract_removal import SPACE, found_near

__all__ = ["ClusterRules", "LessonRules"]

_EAST, _NORTH = make_vector(1, 0), make_vector(0, 1)
_RED, _BLUE, _GREEN = b"red cluster 16by", b"blue cluster 16b", b"green cluster 16"
_LOG, _OTHER_LOG = b"a log of 16 byte", b"and another one."


class ClusterRules:
    """`Entry.cluster`, `join`, and the counts that `nearest` gives. The clusters of one partition are of no other."""

    def test_a_cluster_comes_back_as_it_was_written(self, store: Store) -> None:
        _learning(store)
        for cluster in (None, _RED, bytes(range(240, 256)), bytes(16), _BLUE, None):
            entry = make_entry(vector=_EAST, cluster=cluster)
            store.write(entry)
            assert store.fetch(entry.key) == entry
            assert found_near(store, _EAST) == [entry]

    def test_entries_without_a_cluster_count_themselves_only(self, store: Store) -> None:
        _learning(store)
        _write(store, a=None, b=None, c=None)
        assert _sizes(store) == {"a": 1, "b": 1, "c": 1}

    def test_each_candidate_says_how_many_entries_its_cluster_has(self, store: Store) -> None:
        _learning(store)
        _write(store, a=_RED, b=_RED, c=_BLUE, d=None, e=_RED)
        assert _sizes(store) == {"a": 3, "b": 3, "c": 1, "d": 1, "e": 3}

    def test_the_whole_cluster_is_counted_however_few_candidates_are_asked_for(self, store: Store) -> None:
        _learning(store)
        for number in range(150):
            cluster = _RED if number % 3 else _BLUE
            store.write(make_entry(f"q{number}", vector=make_vector(1, number / 10), cluster=cluster))
            if number in {20, 149}:
                for k in (1, 2, 5):
                    found = store.nearest(Search(make_partition(), SPACE, _EAST, k, None, 0.99))
                    counts = {one.cluster_size for one in found if one.entry.cluster == _RED}
                    assert counts <= {number + 1 - (number // 3 + 1)}
                    assert found[0].cluster_size == number // 3 + 1

    def test_what_cannot_be_near_counts_all_the_same(self, store: Store) -> None:
        _learning(store)
        _write(store, a=_RED)
        store.write(make_entry("without a vector", cluster=_RED))
        store.write(make_entry("in another space", vector=_EAST, space="other/2", cluster=_RED))
        store.write(make_entry("expired", vector=_NORTH, expires=1.0, cluster=_RED))
        store.block(make_key("asker"), make_key("expired"))
        found = store.nearest(Search(make_partition(), SPACE, _EAST, 5, make_key("asker")))
        assert [(one.entry.query, one.cluster_size) for one in found] == [("a", 4)]

    def test_a_replacement_leaves_the_cluster_of_its_predecessor(self, store: Store) -> None:
        _learning(store)
        _write(store, a=_RED, b=_RED, c=_BLUE)
        _write(store, a=_RED)
        assert _sizes(store) == {"a": 2, "b": 2, "c": 1}, "an entry written again counts once"
        _write(store, a=_BLUE)
        assert _sizes(store) == {"a": 2, "b": 1, "c": 2}
        _write(store, a=None)
        assert _sizes(store) == {"a": 1, "b": 1, "c": 1}

    def test_what_is_removed_counts_no_longer(self, store: Store) -> None:
        _learning(store)
        removals: list[Callable[[], object]] = [
            lambda: store.remove([make_key("a")]),
            lambda: store.remove([make_key("a"), make_key("a"), make_key("never")]),
            lambda: store.sweep(50.0, 10),
            lambda: store.clear(Selection(tags=("leaves",))),
            lambda: store.clear(Selection(written_before=5.0)),
        ]
        for remove in removals:
            store.write(make_entry("a", vector=_EAST, cluster=_RED, created=1.0, expires=2.0, tags=["leaves"]))
            _write(store, b=_RED, c=_RED)
            assert _sizes(store) == {"a": 3, "b": 3, "c": 3}
            remove()
            assert _sizes(store) == {"b": 2, "c": 2}
        store.clear(Selection())
        _write(store, b=_RED)
        assert _sizes(store) == {"b": 1}

    def test_a_dry_run_changes_no_count(self, store: Store) -> None:
        _learning(store)
        _write(store, a=_RED, b=_RED)
        store.remove([make_key("a")], dry_run=True)
        store.clear(Selection(), dry_run=True)
        assert _sizes(store) == {"a": 2, "b": 2}

    def test_touch_changes_neither_cluster_nor_count(self, store: Store) -> None:
        _learning(store)
        _write(store, a=_RED, b=_RED)
        store.touch(make_key("a"), 99.0)
        assert _sizes(store) == {"a": 2, "b": 2}
        assert [one.cluster for one in found_near(store, _EAST)] == [_RED, _RED]

    # ------------------------------------------------------------------------------ join

    def test_join_moves_an_entry_and_changes_nothing_else_of_it(self, store: Store) -> None:
        learning = _learning(store)
        for cluster in (None, _RED):
            entry = make_entry(
                "moved", vector=_EAST, cluster=cluster, expires=9e9, tags=["x"], usage=Usage(1, 2), created=7.25
            )
            store.write(entry)
            _write(store, there=_BLUE)
            learning.join(entry.key, _BLUE)
            moved = replace(entry, cluster=_BLUE)
            assert store.fetch(entry.key) == moved
            assert moved in found_near(store, _EAST)
            assert _sizes(store) == {"moved": 2, "there": 2}
            assert store.size().entries == 2
            assert store.clear(Selection(tags=("x",))) == 1

    def test_join_into_its_own_cluster_changes_nothing(self, store: Store) -> None:
        learning = _learning(store)
        _write(store, a=_RED, b=_RED)
        for _ in range(2):
            learning.join(make_key("a"), _RED)
        assert _sizes(store) == {"a": 2, "b": 2}

    def test_what_joined_is_counted_like_what_was_written_so(self, store: Store) -> None:
        learning = _learning(store)
        _write(store, a=_RED, b=_BLUE, c=_GREEN)
        learning.join(make_key("a"), _BLUE)
        learning.join(make_key("c"), _BLUE)
        assert _sizes(store) == {"a": 3, "b": 3, "c": 3}
        learning.join(make_key("b"), _RED)
        assert _sizes(store) == {"a": 2, "b": 1, "c": 2}
        store.remove([make_key("a")])
        assert _sizes(store) == {"b": 1, "c": 1}

    def test_join_and_touch_keep_what_the_other_set(self, store: Store) -> None:
        learning = _learning(store)
        entry = make_entry(vector=_EAST, expires=10.0, cluster=_RED)
        store.write(entry)
        store.touch(entry.key, 20.0)
        learning.join(entry.key, _BLUE)
        assert store.fetch(entry.key) == replace(entry, expires=20.0, cluster=_BLUE)
        store.touch(entry.key, 30.0)
        assert store.fetch(entry.key) == replace(entry, expires=30.0, cluster=_BLUE)
        assert store.sweep(29.0, 10) == 0
        assert store.sweep(30.0, 10) == 1

    def test_joining_what_is_gone_does_nothing(self, store: Store) -> None:
        learning = _learning(store)
        _write(store, a=_RED, b=_RED)
        store.remove([make_key("b")])
        for query in ("b", "never"):
            learning.join(make_key(query), _RED)
            assert store.fetch(make_key(query)) is None
        assert store.size().entries == 1
        assert _sizes(store) == {"a": 1}

    def test_an_entry_written_after_it_joined_has_the_cluster_it_is_written_with(self, store: Store) -> None:
        learning = _learning(store)
        _write(store, a=_RED, b=_BLUE)
        learning.join(make_key("a"), _BLUE)
        _write(store, a=_GREEN)
        assert _sizes(store) == {"a": 1, "b": 1}
        assert [one.cluster for one in found_near(store, _EAST)] == [_GREEN, _BLUE]

    def test_join_leaves_the_epoch_alone(self, store: Store) -> None:
        learning = _learning(store)
        _write(store, a=_RED)
        first = store.epoch()
        learning.join(make_key("a"), _BLUE)
        assert store.epoch() == first

    def test_counts_are_right_after_changes_by_many_threads(self, store: Store) -> None:
        learning = _learning(store)
        queries = [f"q{number}" for number in range(8)]

        def work(seat: int) -> None:
            for step in range(20):
                query, cluster = queries[(seat + step) % 8], (_RED, _BLUE)[(seat * step) % 2]
                if step % 3 == 0:
                    store.write(make_entry(query, vector=_EAST, cluster=cluster))
                elif step % 3 == 1:
                    learning.join(make_key(query), cluster)
                elif seat % 4 == 0:
                    store.remove([make_key(query)])

        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(work, range(8)))
        found = store.nearest(Search(make_partition(), SPACE, _EAST, 50))
        held = [store.fetch(make_key(query)) for query in queries]
        clusters = [entry.cluster for entry in held if entry is not None]
        assert len(found) == len(clusters)
        assert all(one.cluster_size == clusters.count(one.entry.cluster) for one in found)


class LessonRules:
    """The logs of a `LessonStore` and their summaries."""

    def test_a_log_begins_empty(self, store: Store) -> None:
        learning = _learning(store)
        assert learning.lessons(_LOG, 0) == Lessons(1, ())
        assert learning.lessons(_LOG, 7) == Lessons(8, ())
        assert learning.summary(_LOG) is None
        assert learning.append_lessons(_LOG, []) == 0

    def test_lessons_come_back_in_their_order_and_as_they_were(self, store: Store) -> None:
        learning = _learning(store)
        lessons = (b"one", b"", bytes(range(256)), b"x" * 20_000, b"one", "ü\x00'".encode())
        assert learning.append_lessons(_LOG, lessons[:1]) == 1
        assert learning.append_lessons(_LOG, lessons[1:]) == 6
        assert learning.append_lessons(_LOG, ()) == 6
        assert learning.lessons(_LOG, 0) == Lessons(1, lessons)
        assert all(type(one) is bytes for one in learning.lessons(_LOG, 0).items)

    def test_only_what_is_behind_a_position_is_given(self, store: Store) -> None:
        learning = _learning(store)
        learning.append_lessons(_LOG, [b"%d" % number for number in range(1, 6)])
        assert learning.lessons(_LOG, 3) == Lessons(4, (b"4", b"5"))
        assert learning.lessons(_LOG, 5) == Lessons(6, ())
        assert learning.lessons(_LOG, 9) == Lessons(10, ())

    def test_logs_are_apart(self, store: Store) -> None:
        learning = _learning(store)
        assert learning.append_lessons(_LOG, [b"one"]) == 1
        assert learning.append_lessons(_OTHER_LOG, [b"two", b"three"]) == 2
        learning.keep_summary(_LOG, 1, b"summary")
        assert learning.lessons(_LOG, 0) == Lessons(1, (b"one",))
        assert learning.lessons(_OTHER_LOG, 0) == Lessons(1, (b"two", b"three"))
        assert learning.summary(_OTHER_LOG) is None
        learning.forget_lessons(_OTHER_LOG)
        assert learning.lessons(_LOG, 0) == Lessons(1, (b"one",))
        assert learning.summary(_LOG) == (1, b"summary")

    def test_the_last_lessons_are_kept_with_their_positions(self, store: Store) -> None:
        learning = _learning(store)
        total = 0
        for count in (1_500, 1, 1_500, 1_200, 1_000, 300, 1, 4_200):
            total = learning.append_lessons(_LOG, [b"%d" % (total + number) for number in range(1, count + 1)])
            kept = learning.lessons(_LOG, 0)
            assert kept.items == tuple(b"%d" % number for number in range(kept.first, total + 1))
            assert len(kept.items) >= min(total, LESSONS_KEPT)
            assert learning.lessons(_LOG, kept.first) == Lessons(kept.first + 1, kept.items[1:])
            assert learning.lessons(_LOG, total - 2) == Lessons(total - 1, kept.items[-2:])
            assert learning.lessons(_LOG, total) == Lessons(total + 1, ())
        assert total == 9_702

    def test_a_log_does_not_grow_for_ever(self, store: Store) -> None:
        learning = _learning(store)
        for _ in range(5):
            learning.append_lessons(_LOG, [b"lesson"] * LESSONS_KEPT)
        assert len(learning.lessons(_LOG, 0).items) <= 2 * LESSONS_KEPT

    def test_the_summary_of_the_highest_position_is_kept(self, store: Store) -> None:
        learning = _learning(store)
        learning.append_lessons(_LOG, [b"lesson"] * 9)
        learning.keep_summary(_LOG, 5, b"first")
        assert learning.summary(_LOG) == (5, b"first")
        learning.keep_summary(_LOG, 4, b"late")
        assert learning.summary(_LOG) == (5, b"first")
        learning.keep_summary(_LOG, 5, b"another")
        assert learning.summary(_LOG) == (5, b"another")
        every_byte = bytes(range(256)) * 100
        learning.keep_summary(_LOG, 9, every_byte)
        assert learning.summary(_LOG) == (9, every_byte)
        learning.keep_summary(_LOG, 8, b"late")
        assert learning.summary(_LOG) == (9, every_byte)
        assert learning.append_lessons(_LOG, [b"one"]) == 10, "a summary is no lesson"

    def test_a_summary_beyond_the_end_of_the_log_keeps_none_away(self, store: Store) -> None:
        learning = _learning(store)
        learning.keep_summary(_LOG, 123_456, b"of a log that was lost")
        assert learning.summary(_LOG) == (123_456, b"of a log that was lost")
        learning.append_lessons(_LOG, [b"one", b"two"])
        learning.keep_summary(_LOG, 2, b"of this one")
        assert learning.summary(_LOG) == (2, b"of this one")
        learning.keep_summary(_LOG, 1, b"late")
        assert learning.summary(_LOG) == (2, b"of this one")

    def test_a_forgotten_log_begins_anew(self, store: Store) -> None:
        learning = _learning(store)
        learning.append_lessons(_LOG, [b"one", b"two"])
        learning.keep_summary(_LOG, 2, b"summary")
        for _ in range(2):
            learning.forget_lessons(_LOG)
            assert learning.summary(_LOG) is None
            assert learning.lessons(_LOG, 0) == Lessons(1, ())
        assert learning.append_lessons(_LOG, [b"three"]) == 1
        assert learning.lessons(_LOG, 0) == Lessons(1, (b"three",))
        learning.keep_summary(_LOG, 1, b"of the new one")
        assert learning.summary(_LOG) == (1, b"of the new one")

    def test_no_removal_of_entries_touches_a_log(self, store: Store) -> None:
        learning = _learning(store)
        learning.append_lessons(_LOG, [b"one"])
        learning.keep_summary(_LOG, 1, b"summary")
        entry = make_entry(expires=1.0)
        removals: list[Callable[[], int]] = [
            lambda: store.clear(Selection()),
            lambda: store.clear(Selection(namespace=entry.key.partition.namespace)),
            lambda: store.sweep(4e9, 10),
            lambda: store.remove([entry.key]),
        ]
        for remove in removals:
            store.write(entry)
            assert remove() == 1
            assert learning.lessons(_LOG, 0) == Lessons(1, (b"one",))
            assert learning.summary(_LOG) == (1, b"summary")

    def test_lessons_are_no_entries(self, store: Store) -> None:
        learning = _learning(store)
        learning.append_lessons(_LOG, [b"one", b"two"])
        learning.keep_summary(_LOG, 2, b"summary")
        assert store.size().entries == 0
        assert store.clear(Selection(), dry_run=True) == 0
        assert store.sweep(4e9, 10) == 0

    def test_learning_leaves_the_epoch_alone(self, store: Store) -> None:
        learning = _learning(store)
        first = store.epoch()
        learning.append_lessons(_LOG, [b"one"])
        learning.keep_summary(_LOG, 1, b"summary")
        learning.forget_lessons(_LOG)
        assert store.epoch() == first

    def test_lessons_of_many_threads_are_all_there_once_and_in_the_order_of_each(self, store: Store) -> None:
        learning = _learning(store)

        def work(seat: int) -> list[int]:
            return [
                learning.append_lessons(_LOG, [b"%d %d" % (seat, step), b"%d %d" % (seat, step + 1)])
                for step in range(0, 40, 2)
            ]

        with ThreadPoolExecutor(max_workers=8) as pool:
            positions = [position for part in pool.map(work, range(8)) for position in part]
        assert sorted(positions) == list(range(2, 322, 2))
        kept = learning.lessons(_LOG, 0)
        assert (kept.first, len(kept.items)) == (1, 320)
        for seat in range(8):
            mine = [one for one in kept.items if one.startswith(b"%d " % seat)]
            assert mine == [b"%d %d" % (seat, step) for step in range(40)]
        pairs = zip(kept.items[::2], kept.items[1::2], strict=True)
        assert all(one.split()[0] == two.split()[0] for one, two in pairs), "those of one call stay together"


def _learning(store: Store) -> LessonStore:
    if not isinstance(store, LessonStore):
        skip("the store is no LessonStore")
    return store


def _write(store: Store, **clusters: bytes | None) -> None:
    """Entries named so, of these clusters, each with a vector of its own."""
    for query, cluster in clusters.items():
        store.write(make_entry(query, vector=make_vector(1, len(query) + ord(query[0]) / 1_000), cluster=cluster))


def _sizes(store: Store) -> dict[str, int]:
    """What `nearest` says of the clusters' sizes, by question."""
    found = store.nearest(Search(make_partition(), SPACE, _EAST, 50))
    return {one.entry.query: one.cluster_size for one in found}
