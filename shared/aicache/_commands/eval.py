"""`aicache eval FILE`: how often a cache would have been right on a labelled file."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from itertools import islice
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, Final, cast

from aicache._commands._files import check_place
from aicache._errors import ConfigurationError, MissingExtraError
from aicache._evaluation._bound import Advice, Trial, needed, recommend
from aicache._evaluation._embedded import Embedded, embed
from aicache._evaluation._jobs import Replays, Task, replays
from aicache._evaluation._plot import Words, check_plot, plot
from aicache._evaluation._progress import Progress
from aicache._evaluation._report import COLUMNS, LEGEND, Row, fitting, heading, line
from aicache._evaluation._run import replay
from aicache._evaluation._settings import Learned, Setting, Static
from aicache._evaluation._streams import ORDERS, Scenario, Stream, read

if TYPE_CHECKING:
    from aicache.embedders.base import Embedder

__all__ = ["add_arguments", "run"]

_PLAIN: Final = (0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.99)
_GUARDED: Final = (0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.99)
_RATES: Final = (0.005, 0.01, 0.02, 0.05, 0.1)
"""What is drawn where nothing is named."""
_TARGET: Final = 0.02
_JOBS: Final = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `aicache eval` takes."""
    parser.description = (
        "Replays a labelled file through a cache in memory and says how often it would have been right. FILE has rows "
        "of text and answer class (columns text; answer, class, label or intent), or pairs (text_a, text_b; same or "
        "label); CSV, TSV or JSON lines, plain or gzip. Without any setting: the default threshold, max_error_rate "
        "0.02, and a threshold recommended for these questions."
    )
    parser.add_argument("file", type=Path, help="the labelled file")
    tried = parser.add_argument_group("what is tried")
    tried.add_argument("--threshold", type=float, nargs="+", default=[], help="thresholds, with guards and margin")
    tried.add_argument("--plain", action="store_true", help="these thresholds also alone, without guards and margin")
    tried.add_argument("--margin", type=float, default=0.05, help="the margin; default 0.05")
    tried.add_argument(
        "--max-error-rate", type=float, nargs="+", default=[], help="bounds that a matcher learns to keep"
    )
    tried.add_argument("--per", choices=("requests", "hits"), default="requests", help="what the bounds are a share of")
    tried.add_argument("--certified", action="store_true", help="with the certificate")
    tried.add_argument("--floor", type=float, default=0.0, help="what the cache is told about --noise")
    tried.add_argument("--recommend", action="store_true", help="recommend a threshold, also where settings are named")
    tried.add_argument("--target", type=float, help=f"share of wrong hits for that; default {_TARGET}")
    happens = parser.add_argument_group("what happens")
    happens.add_argument("--order", choices=ORDERS, default="random", help="blocked: class by class")
    happens.add_argument("--drift", type=float, default=0.0, help="share of the classes whose answer changes half-way")
    happens.add_argument(
        "--noise", type=float, default=0.0, help="share of equal answers that the comparator calls different"
    )
    happens.add_argument("--seeds", type=int, default=3, help="replays of each setting: seeds 0, 1, ...; default 3")
    happens.add_argument("--limit", type=int, help="use so many rows only, drawn at random")
    parser.add_argument("--embedder", help="a model's name or folder, or MODULE:ATTRIBUTE of your own; default MiniLM")
    parser.add_argument("--vectors", type=Path, help="file in which the vectors are kept between runs")
    parser.add_argument("--jobs", type=int, default=min(_JOBS, os.cpu_count() or 1), help="processes at a time")
    parser.add_argument("--plot", type=Path, help="draw hit rate against error into this file (.html, .png, .svg)")
    parser.add_argument("--json", type=Path, help="write all figures into this file")


def run(options: argparse.Namespace) -> int:
    """Read, embed, replay, print."""
    settings = _settings(options)
    _check(options, settings)
    stream = read(options.file, options.limit)
    scenarios = [Scenario(options.order, seed, options.drift, options.noise) for seed in range(options.seeds)]
    embedded = _embedded(stream, options)
    said = _said(stream, embedded, options)
    _say(said)
    rows: list[Row] = []
    advice: Advice | None = None
    with replays(options.file, options.limit, stream, embedded, _jobs(options, len(settings))) as replayed:
        if settings:
            shown = _columns()
            _say(heading(shown))
            rows += _rows(replayed, settings, scenarios, len(stream.texts), shown)
            _say(LEGEND)
            if shown < len(COLUMNS):
                _say("What this terminal is too narrow for is left out: --json has all figures, and so has a pipe.")
        if _recommends(options):
            advice = _advice(replayed, options, scenarios[0], len(stream.texts))
            _say(advice.sentence)
    if options.json is not None:
        options.json.write_text(
            json.dumps(_figures(options, stream, embedded, rows, advice), indent=1), encoding="utf-8"
        )
    if options.plot is not None:
        about = f"{said} {advice.sentence if advice else ''}"
        plot(options.plot, rows, Words(f"{stream.name}: hit rate against error", about, LEGEND), options.per)
    return 0


def _check(options: argparse.Namespace, settings: Sequence[Setting]) -> None:
    """Find out before an hour of replays what cannot be carried out."""
    try:
        import numpy
    except ImportError:
        raise MissingExtraError("an evaluation", "eval") from None
    for name in ("seeds", "jobs"):
        if getattr(options, name) < 1:
            raise ConfigurationError(name, f"give a number, at least 1; got {getattr(options, name)}")
    needed(_target(options))
    if not 0 <= options.floor < 1:
        raise ConfigurationError("floor", f"give a share in [0, 1); got {options.floor}")
    if options.plot is not None:
        check_plot(options.plot)
    for name in ("json", "vectors"):
        check_place(name, getattr(options, name))
    none, no_vectors = Stream("", (), ()), Embedded("none", numpy.zeros((0, 1), numpy.float32))
    for setting in (*settings, Static(_PLAIN[0], options.margin)):
        replay(none, no_vectors, setting, Scenario(options.order, 0, options.drift, options.noise))


# ----------------------------------------------------------------------------------------------- what is tried


def _settings(options: argparse.Namespace) -> list[Setting]:
    """Those that are named; for a drawing all four kinds."""
    drawn = options.plot is not None
    named = bool(options.threshold or options.max_error_rate)
    guarded = options.threshold or (_GUARDED if drawn else () if named or options.target else (0.97,))
    plain = options.threshold or (_PLAIN if drawn else guarded)
    rates = options.max_error_rate or (_RATES if drawn else () if named or options.target else (0.02,))
    certified = (False, True) if drawn else (options.certified,)
    return [
        *(Static(threshold, plain=True) for threshold in plain if drawn or options.plain),
        *(Static(threshold, options.margin) for threshold in guarded),
        *(Learned(rate, options.per, proven, options.floor) for proven in certified for rate in rates),
    ]


def _recommends(options: argparse.Namespace) -> bool:
    named = options.threshold or options.max_error_rate
    return options.recommend or options.target is not None or not named


def _jobs(options: argparse.Namespace, settings: int) -> int:
    if _recommends(options):
        return int(options.jobs)
    return min(int(options.jobs), settings * int(options.seeds))


# ----------------------------------------------------------------------------------------------------- vectors


def _embedded(stream: Stream, options: argparse.Namespace) -> Embedded:
    kept: Path | None = options.vectors
    if kept is not None and kept.is_file():
        named = _embedder(options.embedder).fingerprint if options.embedder else None
        return Embedded.load(kept, stream, named)
    with Progress("embedding", len(stream.texts)) as progress:
        made = embed(stream, _embedder(options.embedder), progress.tick)
    if kept is not None:
        made.save(kept, stream)
    return made


def _embedder(name: str | None) -> Embedder:
    from aicache.embedders._select import LIBRARY_PREFIX, default_embedder, resolve_embedder

    if name is None:
        found = default_embedder()
        if found is None:
            raise MissingExtraError("matching by meaning", "onnx")
        return found
    if ":" in name and not name.startswith(LIBRARY_PREFIX) and not Path(name).exists():
        return _own_embedder(name)
    return cast("Embedder", resolve_embedder(name))


def _own_embedder(name: str) -> Embedder:
    """`MODULE:ATTRIBUTE`: an embedder, a function from a text to a vector, or a class of embedders."""
    from aicache.embedders._select import resolve_embedder

    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")  # As for `python -m`: the user's module lies where the user stands.
    try:
        found: object = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError("embedder", f"{name} cannot be imported ({error})") from None
    finally:
        sys.path.remove("")
    made = resolve_embedder(found() if isinstance(found, type) else found)
    if made is None:
        raise ConfigurationError("embedder", f"{name} is no embedder")
    return made


# ----------------------------------------------------------------------------------------------------- replays


def _columns() -> int:
    """How many the terminal has room for: a table whose lines are broken in two cannot be read."""
    return fitting(get_terminal_size().columns) if sys.stdout.isatty() else len(COLUMNS)


def _rows(
    replayed: Replays, settings: Sequence[Setting], scenarios: Sequence[Scenario], requests: int, shown: int
) -> Iterator[Row]:
    """Each row is printed when its last seed is done."""
    tasks = [Task(setting, scenario) for setting in settings for scenario in scenarios]
    with Progress("replaying", requests * len(tasks)) as progress:
        results = replayed(tasks, progress.tick)
        for setting in settings:
            row = Row(setting, list(islice(results, len(scenarios))))
            progress.clear()
            _say(line(row, shown))
            yield row


def _advice(replayed: Replays, options: argparse.Namespace, scenario: Scenario, requests: int) -> Advice:
    def trials(thresholds: Sequence[float]) -> Iterator[Trial]:
        with Progress("recommending", requests * len(thresholds)) as progress:
            tasks = [Task(Static(threshold, options.margin), scenario) for threshold in thresholds]
            for threshold, result in zip(thresholds, replayed(tasks, progress.tick), strict=True):
                hits = len(result.outcomes) - result.outcomes.count(0)
                yield Trial(threshold, len(result.outcomes), hits, result.outcomes.count(2))

    return recommend(_target(options), trials, options.jobs)


def _target(options: argparse.Namespace) -> float:
    return _TARGET if options.target is None else float(options.target)


# ----------------------------------------------------------------------------------------------------- what is said


def _said(stream: Stream, embedded: Embedded, options: argparse.Namespace) -> str:
    seeds = f"seeds 0 to {options.seeds - 1}" if options.seeds > 1 else "seed 0"
    happens = [f"order {options.order}", seeds]
    happens += [f"{name} {getattr(options, name):g}" for name in ("drift", "noise") if getattr(options, name)]
    said = (
        f"{stream.name}: {len(stream.texts):,} questions, {len(set(stream.classes)):,} answers; {', '.join(happens)}; "
    )
    said += f"vectors of {embedded.fingerprint}."
    if embedded.refused:
        said += f" {len(embedded.refused):,} questions cannot be embedded and are matched exactly only."
    return said


def _figures(
    options: argparse.Namespace, stream: Stream, embedded: Embedded, rows: Sequence[Row], advice: Advice | None
) -> dict[str, Any]:
    return {
        "file": options.file.name,
        "questions": len(stream.texts),
        "answers": len(set(stream.classes)),
        "embedder": embedded.fingerprint,
        "order": options.order,
        "drift": options.drift,
        "noise": options.noise,
        "settings": [row.figures() for row in rows],
        "recommendation": None if advice is None else {**asdict(advice), "sentence": advice.sentence},
    }


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
