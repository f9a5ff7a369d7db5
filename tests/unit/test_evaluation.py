"""The evaluation: reading labelled files, the scenarios, and that a replay says the truth about a made-up world."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from aicache._errors import ConfigurationError
from aicache._evaluation._report import line
from aicache._evaluation._run import Result, best_threshold, by_threshold, learned
from aicache._evaluation._search import Nearest, Search
from aicache._evaluation._streams import Scenario, Stream, read
from aicache._evaluation._world import World
from aicache._guards import parse
from aicache._learned import Learner, Target


def made_up(classes: int = 30, each: int = 40, spread: float = 0.35) -> tuple[Stream, Nearest]:
    """Questions as points around a centre for each class."""
    chance = np.random.default_rng(7)
    centres = chance.normal(size=(classes, 16))
    points = np.repeat(centres, each, axis=0) + spread * chance.normal(size=(classes * each, 16))
    names = tuple(int(name) for name in np.repeat(np.arange(classes), each))
    order = random.Random(3).sample(range(len(names)), len(names))
    stream = Stream("made-up", tuple(f"question {at}" for at in order), tuple(names[at] for at in order))
    return stream, Nearest.of(stream, points[order])


def write(path: Path, text: str) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


# ------------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("name", ["q.csv", "q.csv.gz"])
def test_labelled_rows_keep_the_order_of_the_file_and_the_first_of_equal_texts(tmp_path: Path, name: str) -> None:
    stream = read(write(tmp_path / name, "text,intent\nb,x\na,y\nb,y\nc,x\n"))
    assert stream.texts == ("b", "a", "c")
    assert stream.same(0, 2) is True
    assert stream.same(0, 1) is False


@pytest.mark.parametrize("name", ["q.jsonl", "q.jsonl.gz"])
def test_pairs_make_chains_and_leave_the_other_relations_unknown(tmp_path: Path, name: str) -> None:
    rows = [("a", "b", 1), ("b", "c", 1), ("c", "d", 0), ("e", "f", 1)]
    text = "\n".join(json.dumps({"text_a": a, "text_b": b, "label": label}) for a, b, label in rows)
    stream = read(write(tmp_path / name, text))
    at = {question: number for number, question in enumerate(stream.texts)}
    assert stream.same(at["a"], at["c"]) is True
    assert stream.same(at["a"], at["d"]) is False
    assert stream.same(at["a"], at["e"]) is None


@pytest.mark.parametrize(("text", "problem"), [("", "no|none"), ("text,colour\na,b\n", "columns")])
def test_a_file_without_rows_or_labels_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        read(write(tmp_path / "q.csv", text))


# ---------------------------------------------------------------------------------------------------- scenarios


def test_every_order_is_a_permutation_and_blocked_brings_each_class_at_once() -> None:
    stream, _ = made_up()
    everything = list(range(len(stream.texts)))
    assert Scenario("file").sequence(stream) == everything
    assert Scenario("random", 1).sequence(stream) != Scenario("random", 2).sequence(stream)
    blocked = Scenario("blocked", 1).sequence(stream)
    assert sorted(blocked) == everything
    changes = sum(stream.classes[a] != stream.classes[b] for a, b in pairwise(blocked))
    assert changes == len(set(stream.classes)) - 1


def test_drift_changes_the_answers_of_a_share_of_the_classes_from_half_way_on() -> None:
    stream, _ = made_up()
    world = World(stream, Scenario(drift=0.3))
    changed = {name for at, name in enumerate(stream.classes) if world.answer(at, 10**6).late}
    assert len(changed) == 9
    assert not any(world.answer(at, 0).late for at in range(len(stream.texts)))
    of_changed = next(at for at, name in enumerate(stream.classes) if name in changed)
    assert world.truth(world.answer(of_changed, 0), world.answer(of_changed, 10**6)) is False


def test_noise_calls_equal_answers_different_at_its_rate_and_never_different_ones_equal() -> None:
    stream, _ = made_up()
    world = World(stream, Scenario(noise=0.25))
    first = world.answer(0, 0)
    like = next(at for at in range(1, len(stream.texts)) if stream.same(0, at))
    unlike = next(at for at in range(len(stream.texts)) if not stream.same(0, at))
    verdicts = Counter(world.compare(first, world.answer(like, 0)) for _ in range(1000))
    assert 180 < verdicts[False] < 320
    assert not any(world.compare(first, world.answer(unlike, 0)) for _ in range(100))


# ------------------------------------------------------------------------------------------------------- search


def test_search_finds_the_same_as_a_comparison_with_all_cached_questions() -> None:
    _, nearest = made_up(each=60)
    search = Search(nearest)
    cached: list[int] = []
    chance = random.Random(0)
    for question in chance.sample(range(len(nearest.vectors)), 300):
        found = search.find(question, 10)
        scores = sorted(((float(nearest.vectors[other] @ nearest.vectors[question])) for other in cached), reverse=True)
        assert [score for _, score in found] == pytest.approx(scores[:10], abs=1e-5)
        search.add(question)
        cached.append(question)


def test_of_pairs_only_questions_with_a_known_relation_are_found() -> None:
    stream = Stream("pairs", ("a", "b", "c", "d"), (0, 0, 2, 3), frozenset({(0, 2)}))
    search = Search(Nearest.of(stream, np.eye(4) + 0.5))
    for question in (1, 2, 3):
        search.add(question)
    assert {other for other, _ in search.find(0, 10)} == {1, 2}


# ------------------------------------------------------------------------------------------------------- replay


def test_the_learned_matcher_serves_and_keeps_its_rate_in_a_made_up_world() -> None:
    stream, nearest = made_up(each=60)
    result = learned(stream, nearest, Scenario(), Learner(Target(0.05)), parse)
    assert result.hit_rate() > 0.4
    assert result.wrong() <= 0.05
    assert result.audits > 0


def test_one_seed_gives_one_result() -> None:
    stream, nearest = made_up(classes=10)
    one, other = (learned(stream, nearest, Scenario(seed=4), Learner(Target(0.05)), parse) for _ in range(2))
    assert one.outcomes == other.outcomes


def test_a_change_of_all_answers_is_noticed() -> None:
    stream, nearest = made_up(each=60)
    result = learned(stream, nearest, Scenario(drift=1.0), Learner(Target(0.05)), parse)
    assert result.alarms >= 1


def test_the_best_threshold_keeps_the_rate_and_a_lower_one_does_not() -> None:
    stream, nearest = made_up(spread=0.6)
    threshold, result = best_threshold(stream, nearest, Scenario(), 0.02)
    assert result.wrong() <= 0.02
    assert by_threshold(stream, nearest, Scenario(), threshold - 0.05).wrong() > 0.02


def test_rates_are_shares_of_requests_and_of_hits() -> None:
    result = Result(bytes([0, 1, 2, 1]) + bytes(1000))
    assert result.hit_rate(0, 4) == 0.75
    assert result.wrong(0, 4) == 0.25
    assert result.wrong_per_hit() == pytest.approx(1 / 3)
    assert result.worst_running() == pytest.approx(1 / 1000)
    assert "0.75" not in line("all", [result])
