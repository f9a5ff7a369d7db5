"""What learning costs: a decision, a fit, and what lookups notice of fits in the background.

    python benchmarks/learning.py

Prints microseconds of the thread's own CPU time a decision (ten neighbours; features, risk, cutoff and audit draw; the
new question is parsed, those of entries are remembered), beside those of the static matcher in the same run; how long a
fit of 4,000 lessons takes; and the slowest lookups of a cache that fits all the time, beside those of one that never
does.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

from aicache._guards import DEFAULT_GUARDS
from aicache._learned import Equal, FeatureSet, Label, Learner, Target, fit
from aicache._learning import LearnedMatcher
from aicache._learning_choice import digest_only
from aicache._match import StaticMatcher
from aicache._model import Answer, Candidate, Hit, Miss, Prompt, Turn
from aicache._plans import Matcher
from aicache._study import Studying
from aicache.cache import Question, SemanticCache
from aicache.embedders._embedding import Embedding
from aicache.stores.memory import MemoryStore
from aicache.testing import FakeEmbedder, make_entry

PAIRS = Path(__file__).resolve().parents[1] / "tests" / "unit" / "guard_pairs.jsonl"
WORDS = ("please", "now", "today", "again", "soon", "here", "there", "really", "also", "maybe", "still", "then")
DECISIONS = 2_000
LOOKUPS = 4_000


def questions() -> list[str]:
    """Some 1,700 questions of many domains."""
    pairs = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    return [pair[side] for pair in pairs for side in ("text_a", "text_b")]


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def decision(matcher: Matcher, texts: list[str], space: str) -> float:
    """Median microseconds of CPU time for a question and ten neighbours."""
    entries = [make_entry(text) for text in texts]
    chance = random.Random(1)
    taken: list[float] = []
    for _ in range(DECISIONS):
        near = [Candidate(chance.choice(entries), 0.96 - place / 100) for place in range(10)]
        text = f"{chance.choice(texts)} {chance.choice(WORDS)} {chance.choice(WORDS)}"
        started = time.thread_time_ns()
        matcher.decide(text, near, space)
        taken.append((time.thread_time_ns() - started) / 1e3)
    return median(taken)


def learned_matcher(store: MemoryStore, *, seed: int = 1) -> LearnedMatcher:
    return LearnedMatcher(Target(0.05), DEFAULT_GUARDS, store, namespace="", coin=random.Random(seed).random)


def some_labels(count: int) -> list[Label]:
    """Lessons as a log has them: rows of features and mostly right answers."""
    width, chance = FeatureSet().count, random.Random(2)
    import numpy

    rows = numpy.random.default_rng(2).normal(size=(count, width)).astype("<f4")
    return [Label(row.tobytes(), chance.random() < 0.8, 1.0, audit=False, risk=0.2, predicted=0.2) for row in rows]


def fit_milliseconds() -> float:
    learner = Learner(Target(0.05))
    learner.take(some_labels(4_000))
    due = learner.due()
    assert due is not None
    taken: list[float] = []
    weights = learner.snapshot().weights
    for _ in range(5):
        started = time.perf_counter()
        weights = fit(due, weights)
        taken.append((time.perf_counter() - started) * 1e3)
    return median(taken)


def traffic() -> Iterator[tuple[str, str]]:
    texts, chance = questions(), random.Random(3)
    for number in range(LOOKUPS):
        text = chance.choice(texts)
        yield (
            f"{text} {chance.choice(('please', 'now', 'today', 'again'))} {number}",
            sha256(text.encode()).hexdigest()[:1],
        )


def slowest(make: Callable[[], SemanticCache]) -> tuple[float, float, float]:
    """Median, 99th percentile and longest lookup, in milliseconds."""
    taken: list[float] = []
    with make() as cache:
        for text, said in traffic():
            raw = sha256(text.encode()).digest()
            prompt = Prompt("text", (Turn("human", text),), b"m")

            def ask(raw: bytes = raw, prompt: Prompt = prompt) -> Question:
                return Question(raw, lambda: prompt)

            started = time.perf_counter()
            outcome = cache.lookup(ask, whole)
            taken.append((time.perf_counter() - started) * 1e3)
            if isinstance(outcome, Miss):
                answer = Answer(said.encode(), said.encode() * 16)
                cache.update(ask, lambda answer=answer: answer)  # type: ignore[misc]
    taken.sort()
    return taken[len(taken) // 2], taken[len(taken) * 99 // 100], taken[-1]


def whole(hit: Hit) -> Hit:
    return hit


def make_learning() -> SemanticCache:
    store = MemoryStore()
    studying = Studying(Equal(), digest_only)
    return SemanticCache(store, embedding=Embedding(FakeEmbedder()), matcher=learned_matcher(store), studying=studying)


def make_static() -> SemanticCache:
    return SemanticCache(MemoryStore(), embedding=Embedding(FakeEmbedder()), matcher=StaticMatcher())


def main() -> None:
    texts = questions()
    store = MemoryStore()
    matcher = learned_matcher(store)
    matcher.course("bench/1").study()
    static = decision(StaticMatcher(threshold=0.9), texts, "")
    learned = decision(matcher, texts, "bench/1")
    print(f"decision, 10 neighbours: learned {learned:.0f} us, static {static:.0f} us, ratio {learned / static:.2f}")
    print(f"fit of 4,000 lessons: {fit_milliseconds():.1f} ms, in the background")
    for name, make in (("static", make_static), ("learning", make_learning)):
        middle, high, longest = slowest(make)
        print(f"{LOOKUPS} lookups, {name:8}: median {middle:.2f} ms, 99 % {high:.2f} ms, longest {longest:.2f} ms")


if __name__ == "__main__":
    main()
