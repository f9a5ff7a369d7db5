"""The rules of `VectorIndex` and `cosines`."""

import math
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from aicache import ConfigurationError
from aicache.stores._vectors import VectorIndex, are_vectors, cosines, is_vector
from aicache.testing import make_vector


def unit_rows(number, dimension=24, seed=1):
    """Unit vectors in clusters, as questions are: neighbours exist."""
    chance = np.random.default_rng(seed)
    centres = chance.standard_normal((max(1, number // 8), dimension))
    rows = centres[chance.integers(len(centres), size=number)] + 0.5 * chance.standard_normal((number, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def filled(rows, **options):
    index = VectorIndex(rows.shape[1], **options)
    for label, row in enumerate(rows):
        index.add(label, row.tobytes())
    return index


def best(rows, query, k):
    return set(np.argsort(-(rows.astype(np.float64) @ query))[:k].tolist())


def test_the_nearest_comes_first_with_its_cosine():
    index = VectorIndex(2)
    index.add(3, make_vector(0, 1))
    index.add(1, make_vector(1, 0))
    index.add(2, make_vector(1, 1))
    found = index.search(make_vector(1, 0), 3)
    assert [label for label, _ in found] == [1, 2, 3]
    assert [score for _, score in found] == pytest.approx([1.0, 0.5**0.5, 0.0], abs=1e-6)


def test_equal_scores_are_ordered_by_label():
    index = VectorIndex(2)
    for label in (5, 2, 9):
        index.add(label, make_vector(1, 1))
    assert [label for label, _ in index.search(make_vector(1, 0), 3)] == [2, 5, 9]


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4, 100])
def test_a_search_returns_at_most_k(k):
    index = filled(unit_rows(3))
    assert len(index.search(unit_rows(1)[0].tobytes(), k)) == min(k, 3)


def test_an_empty_index_finds_nothing():
    assert VectorIndex(4).search(make_vector(1, 0, 0, 0), 5) == []
    assert len(VectorIndex(4)) == 0


def test_adding_a_label_again_replaces_its_vector():
    index = VectorIndex(2)
    index.add(7, make_vector(1, 0))
    index.add(7, make_vector(0, 1))
    assert index.search(make_vector(1, 0), 5) == [(7, 0.0)]
    assert len(index) == 1


def test_a_discarded_label_is_not_found():
    index = filled(unit_rows(40))
    for label in range(0, 40, 2):
        index.discard(label)
    index.discard(1_000)
    found = index.search(unit_rows(1)[0].tobytes(), 40)
    assert sorted(label for label, _ in found) == list(range(1, 40, 2))
    assert len(index) == 20


@pytest.mark.parametrize("exact_limit", [0, 10, 10_000])
def test_every_vector_finds_itself_on_both_sides_of_the_limit(exact_limit):
    rows = unit_rows(600)
    index = filled(rows, exact_limit=exact_limit)
    for label, row in enumerate(rows):
        found, score = index.search(row.tobytes(), 1)[0]
        assert found == label
        assert score == pytest.approx(1.0, abs=5e-4)


def test_scores_from_the_graph_are_within_the_bound_of_float16():
    rows = unit_rows(500, dimension=384)
    index = filled(rows, exact_limit=0)
    for query in unit_rows(50, dimension=384, seed=2):
        for label, score in index.search(query.tobytes(), 10):
            assert abs(score - float(rows[label].astype(np.float64) @ query)) < 2**-11


def test_searches_are_complete_while_the_graph_is_being_built():
    rows = unit_rows(900)
    index = VectorIndex(24, exact_limit=500)
    found = wanted = 0
    for label, row in enumerate(rows):
        index.add(label, row.tobytes())
        if label > 480 and label % 5 == 0:
            query = rows[label // 2].astype(np.float64)
            near = {number for number, _ in index.search(row_bytes(query), 10)}
            found += len(near & best(rows[: label + 1], query, 10))
            wanted += 10
    assert index.pending == 0
    assert found / wanted > 0.98


def row_bytes(row):
    return row.astype(np.float32).tobytes()


def test_an_add_moves_only_a_few_vectors_into_the_graph():
    rows = unit_rows(301)
    index = filled(rows[:300], exact_limit=300)
    assert index.pending == 0, "at the limit nothing belongs into a graph yet"
    index.add(300, rows[300].tobytes())
    assert 290 <= index.pending < 301


def test_build_leaves_nothing_pending():
    rows = unit_rows(4_000)
    index = VectorIndex(24, exact_limit=100)
    index.build(np.arange(4_000), rows)
    assert len(index) == 4_000
    assert index.pending == 0
    hits = sum(index.search(row.tobytes(), 1)[0][0] == label for label, row in enumerate(rows))
    assert hits >= 0.99 * 4_000


def test_a_load_is_searched_exactly_until_it_is_settled():
    rows = unit_rows(700)
    index = VectorIndex(24, exact_limit=100)
    index.load(list(range(700)), rows)
    query = unit_rows(1, seed=9)[0]
    expected = best(rows, query, 10)
    assert index.pending == 700
    assert {label for label, _ in index.search(query.tobytes(), 10)} == expected
    assert index.settle(300) == 400
    assert index.settle(threads=1) == 0
    assert len({label for label, _ in index.search(query.tobytes(), 10)} & expected) >= 9


def test_a_load_replaces_labels_that_are_there():
    index = VectorIndex(2)
    index.add(1, make_vector(1, 0))
    index.load([1, 2, 2], np.array([[0, 1], [1, 0], [0, -1]], dtype=np.float32))
    assert index.search(make_vector(0, 1), 5) == [(1, 1.0), (2, -1.0)]


def test_a_load_leaves_out_rows_that_are_not_of_length_1():
    index = VectorIndex(2)
    rows = [[0, 1], [np.nan, 0], [np.inf, 0], [3e38, 3e38], [0, 0], [0, 1.1], [0, 1.001]]
    index.load(list(range(7)), np.array(rows, dtype=np.float32))
    assert {label for label, _ in index.search(make_vector(1, 0), 9)} == {0, 6}


def test_few_vectors_left_of_many_are_still_all_found():
    rows = unit_rows(800)
    index = filled(rows, exact_limit=50)
    for label in range(790):
        index.discard(label)
    found = index.search(rows[795].tobytes(), 20)
    assert sorted(label for label, _ in found) == list(range(790, 800))
    assert found[0][0] == 795


def test_memory_shrinks_when_few_of_many_are_left():
    index = filled(unit_rows(5_000, dimension=8), exact_limit=100)
    full = index.nbytes
    for label in range(4_990):
        index.discard(label)
    assert index.nbytes < full / 4


def test_a_vector_of_another_dimension_is_refused():
    index = VectorIndex(3)
    with pytest.raises(ValueError, match="2 components, the index 3"):
        index.add(1, make_vector(1, 0))
    with pytest.raises(ValueError, match="2 components, the index 3"):
        index.search(make_vector(1, 0), 1)
    with pytest.raises(ValueError, match="dimension 3"):
        index.load([1], np.ones((1, 2), dtype=np.float32))
    assert len(index) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, 0, 1.1])
def test_a_vector_that_is_not_of_length_1_is_refused_and_the_old_one_stays(bad):
    index = VectorIndex(2)
    index.add(1, make_vector(1, 0))
    with pytest.raises(ValueError, match="length 1"):
        index.add(1, np.array([bad, 0], dtype=np.float32).tobytes())
    assert index.search(make_vector(1, 0), 5) == [(1, 1.0)]


@pytest.mark.parametrize(("dimension", "limit", "name"), [(0, 1, "dimension"), (3, -1, "exact_limit")])
def test_wrong_options_are_named(dimension, limit, name):
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        VectorIndex(dimension, exact_limit=limit)


def test_threads_may_add_discard_and_search_at_once():
    rows = unit_rows(1_600)
    index = VectorIndex(24, exact_limit=200)

    def work(seat):
        for label in range(seat, 1_600, 8):
            index.add(label, rows[label].tobytes())
            assert label in {number for number, _ in index.search(rows[label].tobytes(), 10)}
            if label % 3 == 0:
                index.discard(label)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(index) == sum(label % 3 != 0 for label in range(1_600))
    hits = sum(index.search(rows[label].tobytes(), 1)[0][0] == label for label in range(1, 1_600, 3))
    assert hits / len(range(1, 1_600, 3)) > 0.98


def test_cosines_are_those_of_float32():
    rows = unit_rows(1_500, dimension=384)
    assert cosines(rows[0].tobytes(), [row.tobytes() for row in rows]) == pytest.approx(
        (rows.astype(np.float64) @ rows[0].astype(np.float64)).tolist(), abs=1e-6
    )
    assert cosines(rows[0].tobytes(), []) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, 0, 1.1])
def test_a_vector_is_finite_and_of_length_1_and_all_of_many_are_told_apart(bad):
    wrong = np.array([bad, 0], dtype="<f4").tobytes()
    assert is_vector(make_vector(3, 4))
    assert not is_vector(wrong)
    assert not is_vector(b"")
    assert not is_vector(make_vector(3, 4)[:7])
    assert are_vectors([]) == []
    assert are_vectors([make_vector(3, 4), wrong, make_vector(0, 1)]) == [True, False, True]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, 1.1])
def test_a_score_that_no_two_unit_vectors_have_is_not_a_number(bad):
    """A caller that compared a damaged vector all the same would else see a perfect score."""
    first, second = cosines(make_vector(1, 0), [np.array([bad, 0], dtype="<f4").tobytes(), make_vector(1, 0)])
    assert math.isnan(first)
    assert second == 1.0


def test_a_graph_finds_98_of_100_true_nearest():
    """Questions in clusters, as real ones are; benchmarks/vectors.py measures the same on real vectors."""
    rows = unit_rows(20_000, dimension=64)
    queries = unit_rows(20_300, dimension=64)[20_000:]
    index = VectorIndex(64)
    index.build(list(range(20_000)), rows)
    assert index.pending == 0
    true = np.argmax(queries @ rows.T, axis=1).tolist()
    found = [index.search(query.tobytes(), 1)[0][0] for query in queries]
    assert sum(one == other for one, other in zip(found, true, strict=True)) >= 0.98 * len(queries)


WITHOUT_A_PACKAGE = """
    import logging, sys
    sys.modules[{missing!r}] = None
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    {code}
"""


def run_without(missing, code):
    code = textwrap.dedent(WITHOUT_A_PACKAGE).format(missing=missing, code=textwrap.dedent(code))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_without_usearch_every_size_is_scanned_and_it_is_said_once():
    output = run_without(
        "usearch",
        """
from aicache.stores._vectors import VectorIndex
from aicache.testing import make_vector
for _ in range(2):
    index = VectorIndex(2, exact_limit=10)
    for label in range(50):
        index.add(label, make_vector(1, label))
    print(index.search(make_vector(0, 1), 1)[0][0], index.pending)
""",
    )
    warning, *results = output.splitlines()
    assert "usearch is not installed: pip install 'aicache[onnx]'" in warning
    assert results == ["49 0", "49 0"]


def test_without_numpy_the_extra_is_named():
    output = run_without(
        "numpy",
        """
from aicache import MissingExtraError
try:
    import aicache.stores._vectors
except MissingExtraError as error:
    print(error)
""",
    )
    assert output.strip() == ("semantic matching needs a package that is not installed: pip install 'aicache[onnx]'")
