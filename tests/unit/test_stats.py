"""Rules of the counters."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from aicache._model import Hit, Match, Miss, MissReason, NotStored, SkipReason, Stored, Usage
from aicache._stats import Prices, Recorder
from aicache.testing import make_entry


def hit(tier: str = "l1", match: Match = Match.EXACT, usage: Usage | None = None) -> Hit:
    return Hit(make_entry(usage=usage), tier, match, 1.0, 0.0)


def test_every_lookup_is_a_hit_or_a_miss_with_a_reason() -> None:
    recorder = Recorder(None)
    recorder.looked_up(hit(), 1e-6)
    recorder.looked_up(hit("sqlite", Match.SEMANTIC), 1e-3)
    recorder.looked_up(Miss(MissReason.ABSENT), 1e-3)
    recorder.looked_up(Miss(MissReason.ABSENT), 1e-3)
    stats = recorder.snapshot()
    assert (stats.lookups, stats.exact_hits, stats.semantic_hits, stats.hit_rate) == (4, 1, 1, 0.5)
    assert stats.hits == {("l1", Match.EXACT): 1, ("sqlite", Match.SEMANTIC): 1}
    assert stats.misses == {MissReason.ABSENT: 2}
    assert set(stats.latency) == {"hit l1 exact", "hit sqlite semantic", "miss absent"}


def test_before_the_first_lookup_the_hit_rate_is_zero() -> None:
    assert Recorder(None).snapshot().hit_rate == 0.0


def test_a_hit_saves_the_tokens_that_its_answer_cost() -> None:
    recorder = Recorder(Prices(2.0, 8.0))
    recorder.looked_up(hit(usage=Usage(500_000, 250_000)), 1e-6)
    recorder.looked_up(hit(usage=None), 1e-6)
    stats = recorder.snapshot()
    assert stats.tokens_saved == Usage(500_000, 250_000)
    assert stats.money_saved == 1.0 + 2.0


def test_money_is_unknown_without_prices() -> None:
    assert Recorder(None).snapshot().money_saved is None


def test_updates_are_counted_by_what_became_of_them() -> None:
    recorder = Recorder(None)
    recorder.updated(Stored(make_entry()), 1e-4)
    recorder.updated(Stored(make_entry(), MissReason.EMBEDDER_SLOW), 1e-4)
    recorder.updated(NotStored(SkipReason.EMPTY), 1e-6)
    stats = recorder.snapshot()
    assert stats.stored == 2
    assert stats.stored_without_vector == {MissReason.EMBEDDER_SLOW: 1}
    assert stats.not_stored == {SkipReason.EMPTY: 1}


def test_a_snapshot_does_not_change_afterwards() -> None:
    recorder = Recorder(None)
    recorder.looked_up(Miss(MissReason.ABSENT), 1e-3)
    before = recorder.snapshot()
    recorder.looked_up(Miss(MissReason.ABSENT), 1e-3)
    assert before.lookups == 1
    assert before.misses == {MissReason.ABSENT: 1}
    recorder.reset()
    assert recorder.snapshot().lookups == 0


@given(st.lists(st.floats(1e-8, 100.0), min_size=1, max_size=60))
def test_a_percentile_is_at_most_an_eighth_above_the_true_one(seconds: list[float]) -> None:
    recorder = Recorder(None)
    for each in seconds:
        recorder.looked_up(Miss(MissReason.ABSENT), each)
    found = recorder.snapshot().latency["miss absent"]
    ordered = sorted(seconds)
    for share, value in ((0.50, found.p50), (0.95, found.p95), (0.99, found.p99)):
        rank = next(i for i in range(1, len(ordered) + 1) if i >= share * len(ordered))
        true = ordered[rank - 1]
        assert true * (1 - 1e-9) <= value <= max(true * 1.125, 1e-8) + 2e-9


def test_threads_lose_no_count() -> None:
    recorder = Recorder(None)

    def count() -> None:
        for _ in range(1000):
            recorder.looked_up(Miss(MissReason.ABSENT), 1e-6)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.snapshot().lookups == 8000


def test_the_printed_table_names_hits_rates_and_latencies() -> None:
    recorder = Recorder(Prices(1, 1))
    recorder.looked_up(hit(usage=Usage(10, 5)), 2e-6)
    recorder.failed("fetch", MissReason.STORE_FAILED)
    text = str(recorder.snapshot())
    assert "1 lookups, 1 exact + 0 semantic hits (100.0%)" in text
    assert "15 tokens saved" in text
    assert "hit l1 exact" in text
    assert "failed step fetch: store_failed 1 x" in text
