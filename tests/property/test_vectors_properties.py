"""`VectorIndex` against a dict and a float64 scan, under random operations on both sides of the exact limit."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aicache.stores._vectors import VectorIndex, cosines
from aicache.testing import make_vector

DIMENSION = 6

labels = st.integers(0, 40)
vectors = (
    st.lists(st.integers(-9, 9), min_size=DIMENSION, max_size=DIMENSION)
    .filter(any)
    .map(lambda components: make_vector(*components))
)


def true_scores(query, held):
    if not held:
        return {}
    matrix = np.stack([np.frombuffer(vector, "<f4") for vector in held.values()]).astype(np.float64)
    return dict(zip(held, (matrix @ np.frombuffer(query, "<f4").astype(np.float64)).tolist(), strict=True))


class VectorIndexMachine(RuleBasedStateMachine):
    @initialize(exact_limit=st.sampled_from([0, 3, 8, 1_000]))
    def start(self, exact_limit):
        self.index = VectorIndex(DIMENSION, exact_limit=exact_limit)
        # Half a unit in the last place of float16 for the stored vector and the query, as the module says.
        self.tolerance = 1e-6 if exact_limit == 1_000 else 2**-10
        self.held = {}

    @rule(label=labels, vector=vectors)
    def add(self, label, vector):
        self.index.add(label, vector)
        self.held[label] = vector

    @rule(label=labels)
    def discard(self, label):
        self.index.discard(label)
        self.held.pop(label, None)

    @rule(rows=st.lists(st.tuples(labels, vectors), max_size=12))
    def load(self, rows):
        matrix = np.stack([np.frombuffer(v, "<f4") for _, v in rows]) if rows else np.empty((0, DIMENSION), "<f4")
        self.index.load([label for label, _ in rows], matrix)
        self.held.update(rows)

    @rule(limit=st.none() | st.integers(0, 10))
    def settle(self, limit):
        before = self.index.pending
        left = self.index.settle(limit, threads=1)
        assert left == self.index.pending == (0 if limit is None else max(0, before - limit))

    @rule(query=vectors, k=st.integers(1, 50))
    def search(self, query, k):
        true = true_scores(query, self.held)
        found = self.index.search(query, k)
        assert len(found) == len({label for label, _ in found}) == min(k, len(true))
        assert found == sorted(found, key=lambda pair: (-pair[1], pair[0]))
        best = sorted(true.values(), reverse=True)
        for (label, score), expected in zip(found, best, strict=False):
            assert abs(score - true[label]) <= self.tolerance
            assert abs(score - expected) <= 2 * self.tolerance

    @invariant()
    def the_length_is_the_number_of_labels(self):
        assert len(self.index) == len(self.held)


class TestVectorIndex(VectorIndexMachine.TestCase):
    settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


@settings(max_examples=100, deadline=None)
@given(query=vectors, others=st.lists(vectors, max_size=8))
def test_cosines_agree_with_float64(query, others):
    true = true_scores(query, dict(enumerate(others)))
    scores = cosines(query, others)
    assert len(scores) == len(others)
    assert all(abs(score - true[place]) < 1e-6 and -1 <= score <= 1 for place, score in enumerate(scores))
