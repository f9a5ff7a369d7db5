"""The evaluation: reading labelled files, the scenarios, what counts prove, and that a replay tells the truth."""

from __future__ import annotations

import gzip
import io
import json
import math
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aicache._errors import AICacheError, ConfigurationError, EmbedderError
from aicache._evaluation._bound import ALPHA, THRESHOLDS, Trial, needed, recommend, upper
from aicache._evaluation._embedded import Embedded, TableEmbedder, embed
from aicache._evaluation._jobs import Task, replays
from aicache._evaluation._progress import Progress
from aicache._evaluation._report import COLUMNS, Row, fitting, heading, line
from aicache._evaluation._run import Result, replay
from aicache._evaluation._settings import Learned, Static
from aicache._evaluation._streams import Scenario, Stream, read
from aicache._evaluation._world import Given, World
from aicache._learned import Reading
from aicache.testing import FakeEmbedder


def word(number: int) -> str:
    """A word without meaning, another one for each number: no guard sees a difference that it knows."""
    letters = ""
    for _ in range(4):
        number, at = divmod(number, 20)
        letters += "bcdfghklmnprstvwzjqx"[at] + "a"
    return letters


def made_up(classes: int = 30, each: int = 40, spread: float = 0.35) -> tuple[Stream, Embedded]:
    """Questions as points around a centre for each class."""
    chance = np.random.default_rng(7)
    centres = chance.normal(size=(classes, 16))
    points = np.repeat(centres, each, axis=0) + spread * chance.normal(size=(classes * each, 16))
    names = tuple(int(name) for name in np.repeat(np.arange(classes), each))
    order = random.Random(3).sample(range(len(names)), len(names))
    stream = Stream("made-up", tuple(word(at) for at in order), tuple(names[at] for at in order))
    return stream, Embedded("made-up", points[order].astype(np.float32))


def apart(inside: float, between: float, classes: int = 10, each: int = 20) -> tuple[Stream, Embedded]:
    """Questions with one cosine inside a class and another one between classes."""
    count = classes * each
    points = np.zeros((count, 1 + classes + count), np.float32)
    names = tuple(at % classes for at in range(count))
    points[:, 0] = math.sqrt(between)
    points[np.arange(count), 1 + np.array(names)] = math.sqrt(inside - between)
    points[np.arange(count), 1 + classes + np.arange(count)] = math.sqrt(1 - inside)
    return Stream("apart", tuple(word(at) for at in range(count)), names), Embedded("apart", points)


def write(path: Path, text: str) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def pair_lines(*rows: tuple[str, str, object]) -> str:
    return "\n".join(json.dumps({"text_a": a, "text_b": b, "label": label}) for a, b, label in rows)


# ------------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("name", ["q.csv", "q.csv.gz", "q.tsv", "q.tsv.gz"])
def test_labelled_rows_keep_the_order_of_the_file_and_the_first_of_equal_texts(tmp_path: Path, name: str) -> None:
    text = "text,intent\nb,x\na,y\nb,y\nc,x\n"
    stream = read(write(tmp_path / name, text.replace(",", "\t") if "tsv" in name else text))
    assert stream.texts == ("b", "a", "c")
    assert stream.classes[0] == stream.classes[2] != stream.classes[1]
    assert stream.same(*stream.classes[:2]) is False
    assert {stream.group(at) for at in range(3)} == {0}


@pytest.mark.parametrize("name", ["q.jsonl", "q.jsonl.gz"])
def test_pairs_make_chains_and_leave_the_other_relations_unknown(tmp_path: Path, name: str) -> None:
    text = pair_lines(("a", "b", 1), ("b", "c", "yes"), ("c", "d", 0), ("e", "f", True))
    stream = read(write(tmp_path / name, text))
    name_of = dict(zip(stream.texts, stream.classes, strict=True))
    assert stream.same(name_of["a"], name_of["c"]) is True
    assert stream.same(name_of["a"], name_of["d"]) is False
    assert stream.same(name_of["a"], name_of["e"]) is None


def test_questions_that_no_pair_connects_are_of_different_groups(tmp_path: Path) -> None:
    stream = read(write(tmp_path / "q.jsonl", pair_lines(("a", "b", 1), ("b", "c", 0), ("d", "e", 0))))
    group = {text: stream.group(at) for at, text in enumerate(stream.texts)}
    assert group["a"] == group["b"] == group["c"] != group["d"] == group["e"]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("q.csv", "", "has none"),
        ("q.csv", "text,colour\na,b\n", "columns"),
        ("q.csv", "words,class\na,b\n", "a column text; the first one has .words., .class."),
        ("q.csv", "text,class\na\n", "column class of each row; row 1 is without"),
        ("q.csv", "text,class\na,x\nb, \n", "column class of each row; row 2 is without"),
        ("q.csv", "text,class\na,x\nb,x\n", "with different answers"),
        ("q.csv", "text_a,text_b,same\na,b,1\n", "with different answers"),
        ("q.csv", "text_a,text_b,same\na\n", "column text_b|column same"),
        ("q.csv", "text_a,text_b,same\na,b,perhaps\n", "got 'perhaps'"),
        ("q.jsonl", "no json", "no CSV, TSV or JSON lines"),
        ("q.jsonl", "[1]", "an object in each line"),
        ("q.jsonl", '{"text": "a", "class": "x"}\n{"text": "b"}', "row 2 is without"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        read(write(tmp_path / name, text))


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "q.csv.gz"
    path.write_bytes(gzip.compress(b"text,class\na,x\nb,y\n" * 100)[:40])
    with pytest.raises(ConfigurationError, match="no CSV, TSV or JSON lines"):
        read(path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a folder"):
        read(tmp_path)


def test_the_mark_that_some_programs_begin_a_file_with_does_not_belong_to_it(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("\ufefftext,class\na,x\nb,y\n", encoding="utf-8")
    assert read(path).texts == ("a", "b")


@pytest.mark.parametrize("same", ["1", "1.0", "True", " yes ", "SAME"])
@pytest.mark.parametrize("different", ["0", "0.0", "False", " no ", "Different"])
def test_a_pair_is_the_same_or_different_in_many_words(tmp_path: Path, same: str, different: str) -> None:
    path = tmp_path / "q.csv"
    path.write_text(f"text_a,text_b,label\na,b,{same}\na,c,{different}\n")
    stream = read(path)
    a, b, c = stream.classes
    assert a == b != c
    assert stream.same(a, c) is False


def test_a_terminal_gets_as_many_columns_as_fit() -> None:
    assert fitting(1000) == len(COLUMNS)
    for width in range(45, 170):
        shown = fitting(width)
        assert len(heading(shown)) <= width
        assert shown == len(COLUMNS) or len(heading(shown + 1)) > width
    assert fitting(10) == 1


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no file"):
        read(tmp_path / "q.csv")


def test_a_limit_draws_rows_of_the_whole_file_and_always_the_same_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "q.csv", "text,class\n" + "".join(f"q{at:03},{at // 10}\n" for at in range(100)))
    stream = read(path, 20)
    assert len(stream.texts) == 20
    assert list(stream.texts) == sorted(stream.texts)
    assert len(set(stream.classes)) > 5
    assert read(path, 20) == stream
    assert len(read(path, 1000).texts) == 100


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


@pytest.mark.parametrize("name", ["drift", "noise"])
@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_what_is_no_share_is_refused(name: str, share: float) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Scenario(**{name: share})  # type: ignore[arg-type]


def test_drift_changes_the_answers_of_a_share_of_the_classes_from_half_way_on() -> None:
    stream, _ = made_up()
    world = World(stream, Scenario(drift=0.3))
    changed = {name for at, name in enumerate(stream.classes) if world.answer(at, 10**6).late}
    assert len(changed) == 9
    assert not any(world.answer(at, 0).late for at in range(len(stream.texts)))
    of_changed = next(at for at, name in enumerate(stream.classes) if name in changed)
    early, late = world.answer(of_changed, 0), world.answer(of_changed, 10**6)
    assert world.truth(early, late) is False
    assert early.answer.digest != late.answer.digest


def test_an_answer_can_be_read_back() -> None:
    for given_answer in (Given(3, late=False), Given(3, late=True)):
        assert Given.of(given_answer.answer) == given_answer


def reading(given_answer: Given) -> Reading:
    return Reading(given_answer.answer.digest)


def test_noise_calls_equal_answers_different_at_its_rate_and_never_different_ones_equal() -> None:
    stream, _ = made_up()
    world = World(stream, Scenario(noise=0.25))
    first = world.answer(0, 0)
    unlike = world.answer(next(at for at, name in enumerate(stream.classes) if name != stream.classes[0]), 0)
    verdicts = Counter(world.same(reading(first), reading(first)) for _ in range(1000))
    assert 180 < verdicts[False] < 320
    assert not any(world.same(reading(first), reading(unlike)) for _ in range(100))
    assert world.truth(first, first) is True


def test_the_comparator_cannot_tell_what_the_file_does_not_say() -> None:
    world = World(Stream("pairs", ("a", "b"), (0, 1), frozenset(), (0, 1)), Scenario())
    assert world.same(reading(world.answer(0, 0)), reading(world.answer(1, 0))) is None


# ------------------------------------------------------------------------------------------------------ vectors


def test_a_question_that_the_embedder_refuses_does_not_cost_the_others() -> None:
    stream = Stream("q", ("one two", "one two three four", "two three"), (0, 1, 2))
    embedded = embed(stream, FakeEmbedder(max_words=3))
    assert embedded.refused == {1}
    table = TableEmbedder(stream, embedded)
    assert np.array_equal(table.embed(["two three"])[0], embedded.vectors[2])
    with pytest.raises(EmbedderError):
        table.embed(["one two three four"])


def test_a_file_without_any_question_for_the_embedder_is_refused() -> None:
    with pytest.raises(EmbedderError, match="none of the questions"):
        embed(Stream("q", ("one two", "two three"), (0, 1)), FakeEmbedder(max_words=1))


def test_the_embedder_gets_what_the_cache_would_embed() -> None:
    labelled = "You are a helpful assistant.\n\nQuestion: Where is my card?\n"
    stream = Stream("q", (labelled,), (0,))
    embedder = FakeEmbedder()
    assert embed(stream, embedder).vectors[0] == pytest.approx(embedder.embed(["Where is my card?"])[0], abs=1e-6)


def test_vectors_are_kept_for_the_same_questions_and_the_same_embedder_only(tmp_path: Path) -> None:
    stream, embedded = made_up(3, 5)
    path = tmp_path / "vectors"
    embedded = replace(embedded, refused=frozenset({2}))
    embedded.save(path, stream)
    loaded = Embedded.load(path, stream, "made-up")
    assert np.array_equal(loaded.vectors, embedded.vectors)
    assert (loaded.refused, loaded.fingerprint) == (frozenset({2}), "made-up")
    with pytest.raises(ConfigurationError, match="other questions"):
        Embedded.load(path, replace(stream, texts=stream.texts[::-1]))
    with pytest.raises(ConfigurationError, match="was made by made-up"):
        Embedded.load(path, stream, "another")
    path.write_text("no vectors")
    with pytest.raises(ConfigurationError, match="vectors"):
        Embedded.load(path, stream)


# ------------------------------------------------------------------------------------------------------- replay


def outcomes(stream: Stream, points: Sequence[Sequence[float]], setting: Static) -> list[int]:
    embedded = Embedded("by hand", np.array(points, np.float32))
    return list(replay(stream, embedded, setting, Scenario("file")).outcomes)


def test_a_hit_inserts_nothing_and_is_right_if_the_class_served_is_that_of_the_question() -> None:
    stream = Stream("q", ("ba", "ca", "da", "fa", "ga"), (0, 0, 1, 0, 1))
    near = [1.0, 0.1, 0.0], [1.0, 0.0, 0.1], [1.0, 0.1, 0.1]
    points = [near[0], near[1], near[2], [0.0, 1.0, 0.0], [0.0, 1.0, 0.05]]
    assert outcomes(stream, points, Static(0.95, plain=True)) == [0, 1, 2, 0, 2]
    assert outcomes(stream, points, Static(1.0, plain=True)) == [0, 0, 0, 0, 0]


def test_the_guards_veto_but_not_where_the_threshold_stands_alone() -> None:
    stream = Stream("q", ("is it on monday", "is it on friday"), (0, 1))
    points = [[1.0, 0.0], [1.0, 0.01]]
    assert outcomes(stream, points, Static(0.95)) == [0, 0]
    assert outcomes(stream, points, Static(0.95, plain=True)) == [0, 2]


def test_of_pairs_only_questions_with_a_known_relation_are_found() -> None:
    stream = Stream("pairs", ("ba", "ca", "da", "fa"), (0, 1, 2, 0), frozenset({(0, 1), (1, 2)}), (0, 0, 0, 0))
    points = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.01], [1.0, 0.012]]
    # The third question's nearest is the first, but nobody said whether they are the same; the fourth's is the third.
    assert outcomes(stream, points, Static(0.95, plain=True)) == [0, 0, 0, 1]


def test_a_question_that_cannot_be_embedded_is_a_miss() -> None:
    stream = Stream("q", ("ba", "ca"), (0, 0))
    embedded = Embedded("by hand", np.array([[1.0, 0.0], [1.0, 0.0]], np.float32), frozenset({1}))
    result = replay(stream, embedded, Static(0.9), Scenario("file"))
    assert list(result.outcomes) == [0, 0]
    assert result.misses == {"absent": 1, "exact_only": 1}


def test_a_fault_of_the_cache_ends_the_replay_for_its_figures_would_be_of_that() -> None:
    stream, embedded = made_up(2, 5)
    broken = replace(embedded, vectors=np.full_like(embedded.vectors, np.nan))
    with pytest.raises(AICacheError, match="reported a fault"):
        replay(stream, broken, Static(0.9), Scenario())


def test_drift_makes_old_answers_wrong() -> None:
    stream, embedded = apart(0.95, 0.5)
    result = replay(stream, embedded, Static(0.9, plain=True), Scenario("file", drift=1.0))
    assert result.wrong(0, result.half) == 0
    assert result.wrong(result.half) == 1


def test_the_learned_matcher_serves_and_keeps_its_rate_in_a_made_up_world() -> None:
    stream, embedded = made_up(each=60)
    result = replay(stream, embedded, Learned(0.05), Scenario())
    assert result.hit_rate() > 0.4
    assert result.wrong() <= 0.05
    assert result.misses["audit"] > 0
    assert sum(result.misses.values()) == result.outcomes.count(0)
    assert all(microseconds > 0 for microseconds in result.decisions)


def test_one_seed_gives_one_result_and_another_seed_another() -> None:
    stream, embedded = made_up(classes=10)
    one, same, other = (
        replay(stream, embedded, Learned(0.05), Scenario(seed=seed, noise=0.1)).outcomes for seed in (4, 4, 5)
    )
    assert one == same != other


def test_a_change_of_all_answers_is_noticed_and_learning_begins_anew() -> None:
    stream, embedded = made_up(classes=12, each=150, spread=0.15)
    steady = replay(stream, embedded, Learned(0.05), Scenario())
    changed = replay(stream, embedded, Learned(0.05), Scenario(drift=1.0))
    assert changed.misses["learning"] > steady.misses["learning"]
    assert changed.alarms > steady.alarms
    assert 0 < changed.wrong(changed.half) <= 0.05


def test_errors_are_counted_against_the_truth_and_a_known_floor_brings_hits_back() -> None:
    stream, embedded = made_up(classes=20, spread=0.2)
    noisy = Scenario(noise=0.1)
    blind, told = (replay(stream, embedded, Learned(0.05, floor=floor), noisy) for floor in (0.0, 0.1))
    assert blind.wrong() <= 0.05
    assert told.wrong() <= 0.05
    assert told.hit_rate() > blind.hit_rate()


def test_a_certificate_serves_later() -> None:
    stream, embedded = made_up(classes=15)
    plain, certified = (
        replay(stream, embedded, Learned(0.05, certified=proven), Scenario()).hit_rate() for proven in (False, True)
    )
    assert certified < plain


def test_processes_give_the_results_of_one_process_in_the_order_of_the_tasks(tmp_path: Path) -> None:
    rows = "".join(f"how do i {verb} my {noun},{noun}\n" for noun in ("card", "phone") for verb in ("block", "unlock"))
    path = write(tmp_path / "q.csv", "text,class\n" + rows)
    stream = read(path)
    embedded = embed(stream, FakeEmbedder())
    tasks = [Task(Static(threshold, plain=True), Scenario("file")) for threshold in (0.3, 0.99, 0.6)]
    ticks: list[int] = []
    with replays(path, None, stream, embedded, jobs=2) as there, replays(path, None, stream, embedded, jobs=1) as here:
        many = [result.outcomes for result in there(tasks, ticks.append)]
        one = [result.outcomes for result in here(tasks, ticks.append)]
    assert many == one
    assert one[0] != one[1]
    assert sum(ticks) == 2 * 3 * len(stream.texts)


# ------------------------------------------------------------------------------------------------------- counts


def test_rates_are_shares_of_requests_and_of_hits() -> None:
    result = Result(bytes([0, 1, 2, 1]) + bytes(1000))
    assert result.hit_rate(0, 4) == 0.75
    assert result.wrong(0, 4) == 0.25
    assert result.wrong_per_hit() == pytest.approx(1 / 3)
    assert result.worst_running() == pytest.approx(1 / 1000)


def test_a_row_shows_the_mean_and_the_worst_seed() -> None:
    right, wrong = bytes([1]) * 1000 + bytes(1000), bytes([2]) * 1000 + bytes([1]) * 1000
    text = line(Row(Static(0.9), [Result(right), Result(wrong)]))
    assert "0.750 (0.500)" in text
    assert "0.2500 (0.5000)" in text
    assert len(text) == len(heading())


def test_without_a_wrong_one_the_bound_is_the_rule_of_three() -> None:
    assert upper(0, 300) == pytest.approx(1 - ALPHA ** (1 / 300))
    assert upper(0, 0) == upper(5, 5) == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400), st.data())
def test_at_the_bound_so_few_are_wrong_with_probability_alpha(count: int, data: st.DataObject) -> None:
    wrong = data.draw(st.integers(0, count - 1))
    rate = upper(wrong, count)
    tail = sum(math.comb(count, i) * rate**i * (1 - rate) ** (count - i) for i in range(wrong + 1))
    assert tail == pytest.approx(ALPHA, rel=1e-6)
    assert upper(wrong, count, 0.01) > rate > wrong / count


# ----------------------------------------------------------------------------------------------- recommendation


def trials(hits: Sequence[int], wrong: Sequence[int]) -> dict[float, Trial]:
    return {t: Trial(t, 10_000, h, w) for t, h, w in zip(THRESHOLDS, hits, wrong, strict=False)}


def test_the_loosest_threshold_before_the_first_that_fails_is_recommended() -> None:
    known = trials([100, 400, 900, 1500, 3000], [0, 0, 9, 60, 0])
    asked: list[float] = []

    def replayed(thresholds: Sequence[float]) -> Iterator[Trial]:
        for threshold in thresholds:
            asked.append(threshold)
            yield known[threshold]

    advice = recommend(0.02, replayed)
    assert advice.best == known[0.97]
    assert asked == list(THRESHOLDS[:4])
    assert "threshold=0.97" in advice.sentence
    assert f"{upper(9, 900):.2%} of the hits" in advice.sentence


def test_thresholds_with_too_few_hits_to_pass_do_not_end_the_search() -> None:
    enough = needed(0.02)
    known = trials([enough // 3, enough - 1, enough], [enough // 3, 3, 0])
    advice = recommend(0.02, lambda ts: (known.get(t, Trial(t, 10_000, enough, enough)) for t in ts), at_once=3)
    assert advice.best == known[0.97]


def test_where_nothing_can_be_shown_the_reason_is_said() -> None:
    few = recommend(0.02, lambda ts: (Trial(t, 500, 100, 0) for t in ts))
    assert few.best is None
    assert "only 100 hits" in few.sentence
    bad = recommend(0.02, lambda ts: (Trial(t, 5000, 1000, 100) for t in ts))
    assert bad.best is None
    assert "100 of 1000 hits are wrong" in bad.sentence
    with pytest.raises(ConfigurationError, match="target"):
        recommend(0.0, lambda ts: (Trial(t, 1, 1, 1) for t in ts))


def test_a_threshold_that_is_too_bad_is_recommended_no_more_often_than_alpha() -> None:
    chance = np.random.default_rng(1)

    def world(thresholds: Sequence[float]) -> Iterator[Trial]:
        for threshold in thresholds:
            yield Trial(threshold, 5000, 1000, int(chance.binomial(1000, 0.0201)))

    recommended = sum(recommend(0.02, world).best is not None for _ in range(1000))
    assert recommended <= 70  # 50, and three standard deviations


def test_the_recommendation_finds_the_threshold_that_separates_a_world_with_a_known_one() -> None:
    stream, embedded = apart(0.95, 0.853)

    def replayed(thresholds: Sequence[float]) -> Iterator[Trial]:
        for threshold in thresholds:
            result = replay(stream, embedded, Static(threshold), Scenario())
            hits = len(result.outcomes) - result.outcomes.count(0)
            yield Trial(threshold, len(result.outcomes), hits, result.outcomes.count(2))

    advice = recommend(0.05, replayed)
    assert advice.best is not None
    assert advice.best.threshold == 0.86
    assert advice.tried[-1].threshold == 0.85
    assert advice.tried[-1].wrong >= 5


# ----------------------------------------------------------------------------------------------------- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_tqdm_progress_is_a_plain_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    shown = Terminal()
    with Progress("replaying", 200, shown) as progress:
        progress.tick(50)
        progress.tick(1)
        progress.tick(149)
    assert shown.getvalue().count("replaying: 25 %") == 1
    assert "replaying: 100 %" in shown.getvalue()


def test_where_nobody_looks_nothing_is_shown() -> None:
    shown = io.StringIO()
    with Progress("replaying", 10, shown) as progress:
        progress.tick(10)
        progress.clear()
    assert shown.getvalue() == ""
