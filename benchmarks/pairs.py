"""Adversarial pairs and paraphrases decided by the real static matcher, against the best plain threshold.

    python benchmarks/pairs.py [--pairs FILE] [--threshold .95] [--margin .05] [--show]

The file has one pair a line: `text_a`, `text_b`, `same`, `domain` and `frozen` ("before" or "after": whether the pair
was written before or after the guards were frozen). For each pair `text_b` is the one cached question and `text_a` the
query; vectors are the project's own (`OnnxEmbedder`, its default model). "served" counts adversarial pairs that are
served, "kept" counts paraphrases that are. "plain" is the highest threshold without guards that keeps at least as many
paraphrases of the same pairs. `--show` lists the pairs that went wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aicache._errors import AICacheError
from aicache._match import Accept, StaticMatcher
from aicache._model import Answer, CacheKey, Candidate, Entry, MissReason, Partition

PAIRS = Path(__file__).parents[1] / "tests" / "unit" / "guard_pairs.jsonl"
PARTITION = Partition(b"p" * 16, b"", b"", b"")


@dataclass(frozen=True)
class Pair:
    text_a: str
    text_b: str
    same: bool
    domain: str
    frozen: str


@dataclass(frozen=True)
class Decided:
    pair: Pair
    score: float
    served: bool
    veto: str
    """The guard that vetoed, or empty."""


def read(path: Path) -> list[Pair]:
    return [Pair(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def decide(pair: Pair, score: float, matcher: StaticMatcher) -> Decided:
    candidate = Candidate(Entry(CacheKey(PARTITION, b"b"), pair.text_b, Answer(b"", b"b"), created=0.0), score)
    decision = matcher.decide(pair.text_a, [candidate])
    if isinstance(decision, Accept):
        return Decided(pair, score, served=True, veto="")
    # Below the threshold the matcher asks no guard; the veto is asked for apart, to count false ones everywhere.
    at_any_score = StaticMatcher(1e-9, matcher.margin, matcher.guards).decide(pair.text_a, [candidate])
    guarded = not isinstance(at_any_score, Accept) and at_any_score.reason is MissReason.GUARDED
    return Decided(pair, score, served=False, veto=at_any_score.detail if guarded else "")


def share(found: Sequence[Decided], chosen: Callable[[Decided], bool]) -> str:
    if not found:
        return "-"
    count = sum(map(chosen, found))
    return f"{count}/{len(found)} {count / len(found):.1%}"


def plain(adversarial: Sequence[Decided], paraphrases: Sequence[Decided]) -> str:
    """The highest plain threshold that keeps as many paraphrases, and what it serves of the others."""
    kept = sum(one.served for one in paraphrases)
    if not kept:
        return "-"
    threshold = sorted((one.score for one in paraphrases), reverse=True)[kept - 1]
    return f"{share(adversarial, lambda one: one.score >= threshold)} at {threshold:.4f}"


def report(title: str, found: Sequence[Decided], threshold: float) -> None:
    adversarial = [one for one in found if not one.pair.same]
    paraphrases = [one for one in found if one.pair.same]
    columns = (
        share(adversarial, lambda one: one.served),
        share(adversarial, lambda one: one.score >= threshold),
        share(adversarial, lambda one: one.veto != ""),
        share(paraphrases, lambda one: one.served),
        share(paraphrases, lambda one: one.veto != ""),
    )
    print(f"  {title:10} {' '.join(f'{column:14}' for column in columns)} {plain(adversarial, paraphrases)}")


def show(found: Sequence[Decided]) -> None:
    for one in found:
        if one.pair.same and one.veto:
            print(f"  false veto  {one.score:.3f} {one.veto:10} {one.pair.text_a} | {one.pair.text_b}")
    for one in found:
        if not one.pair.same and one.served:
            print(f"  served      {one.score:.3f} {'-':10} {one.pair.text_a} | {one.pair.text_b}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=Path, default=PAIRS)
    parser.add_argument("--threshold", type=float, default=0.95)
    parser.add_argument("--margin", type=float, default=0.05)
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args(arguments)
    pairs = read(options.pairs)
    try:
        import numpy as np

        from aicache.embedders.onnx import OnnxEmbedder

        embedder = OnnxEmbedder()
        print(f"embedder: {embedder.fingerprint}")
        vectors = [embedder.embed([pair.text_a, pair.text_b]) for pair in pairs]
    except (ImportError, AICacheError) as missing:
        print(f"skipped: {missing}")
        return 0
    matcher = StaticMatcher(options.threshold, options.margin)
    found = [decide(pair, float(np.dot(a, b)), matcher) for pair, (a, b) in zip(pairs, vectors, strict=True)]
    for part in sorted({pair.frozen for pair in pairs}, reverse=True):
        written = [one for one in found if one.pair.frozen == part]
        print(f"\nwritten {part} the guards were frozen; threshold {options.threshold:g}, margin {options.margin:g}")
        print("  domain     served         score alone    vetoed         kept           false vetoes   plain serves")
        for domain in sorted({one.pair.domain for one in written}):
            report(domain, [one for one in written if one.pair.domain == domain], options.threshold)
        report("all", written, options.threshold)
        vetoes = Counter(one.veto for one in written if one.pair.same and one.veto)
        print(f"  paraphrases vetoed by: {', '.join(f'{name} {n}' for name, n in vetoes.most_common()) or 'none'}")
        if options.show:
            show(written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
