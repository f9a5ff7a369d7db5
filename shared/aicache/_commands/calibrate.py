"""`aicache calibrate FILE --model MODULE:ATTRIBUTE`: how often a comparator errs on the answers of a model."""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from aicache._commands._files import check_place
from aicache._errors import ConfigurationError
from aicache.calibration import Calibration, calibrate

__all__ = ["add_arguments", "read_questions", "run"]

DESCRIPTION: Final = """\
Asks a model each question of a file twice and measures how often a comparator calls two answers to one question \
different. The result, a small file without questions and answers, is what AICache(calibration=...) takes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.description = DESCRIPTION
    parser.add_argument("file", type=Path, help="questions: one a line, or CSV or JSON lines with a column `text`")
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODULE:ATTRIBUTE",
        help="a function from a question to its answer, or a chat model with `invoke` or `complete`",
    )
    parser.add_argument("--n", type=int, default=50, help="questions to ask, chosen at random (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("calibration.json"), help="default: %(default)s")
    parser.add_argument(
        "--comparator",
        metavar="MODULE:ATTRIBUTE",
        help="what the cache is given as `comparator` (default: the default one, with a bar that fits this model)",
    )
    parser.add_argument(
        "--embedder",
        default="default",
        help="name or folder of the cache's embedding model, or `none` (default: MiniLM)",
    )


def run(options: argparse.Namespace) -> int:
    """Carry out the command; 0, for what goes wrong is raised.

    Raises:
        AICacheError: an argument is wrong, or the model failed.
    """
    check_place("--out", options.out)
    questions = _chosen(read_questions(options.file), options.n)
    model = _named("--model", options.model)
    comparator = None if options.comparator is None else _named("--comparator", options.comparator)
    embedder = _embedder(options.embedder)
    _say(f"Asking {options.model} {len(questions)} questions twice each; no cache is read or written.")
    with _Progress(len(questions)) as progress:
        found = calibrate(model, questions, comparator=comparator, embedder=embedder, on_progress=progress.show)
    found.save(options.out)
    for line in _report(found, options.out, options.comparator):
        _say(line)
    return 0


def _chosen(questions: list[str], count: int) -> list[str]:
    if count < 2:
        raise ConfigurationError("--n", f"give a number of at least 2; got {count}")
    if len(questions) <= count:
        return questions
    return random.Random(0).sample(questions, count)  # noqa: S311 - a sample, the same each time


def _report(found: Calibration, out: Path, comparator: str | None) -> Iterator[str]:
    yield (
        f"Of {found.questions} questions answered twice, the comparator calls {found.floor.false_different:.1%} of the "
        f"answers different (at most {found.false_different_at_most:.1%}, 95 % confidence)."
    )
    if found.unclear:
        yield f"It could not tell {found.unclear:.1%} of them."
    yield f"Of the answers to different questions it calls {found.floor.false_same:.1%} the same."
    if found.bar is not None:
        yield f"Answers mean the same from a cosine of {found.bar:.2f} on; the file says so too."
    given = "" if comparator is None else f", comparator={comparator.rpartition(':')[2]}"
    yield f'Written. Use it with: AICache(max_error_rate=0.02, calibration="{out.as_posix()}"{given})'


# --------------------------------------------------------------------------------------------- questions


def read_questions(path: Path) -> list[str]:
    """The different questions of a file.

    Raises:
        ConfigurationError: it cannot be read, has no column `text`, or holds no question.
    """
    try:
        found = list(dict.fromkeys(text.strip() for text in _texts(path) if text.strip()))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("file", f"{path} cannot be read ({_why(error)})") from error
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ConfigurationError("file", f"give each row of {path.name} a column `text`") from None
    if not found:
        raise ConfigurationError("file", f"{path.name} holds no question")
    return found


def _why(error: OSError | UnicodeDecodeError) -> str:
    return (isinstance(error, OSError) and error.strerror) or "it is not UTF-8"


def _texts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        match path.suffix.lower():
            case ".csv":
                yield from (row["text"] for row in csv.DictReader(lines))
            case ".jsonl" | ".ndjson":
                yield from (json.loads(line)["text"] for line in lines if line.strip())
            case _:
                yield from lines


# ------------------------------------------------------------------------------------------------- names


def _named(option: str, name: str) -> Any:
    """What `module:attribute` names; the working directory is looked in too."""
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigurationError(option, f"give MODULE:ATTRIBUTE; got {name!r}")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ConfigurationError(option, f"{name} cannot be imported ({type(error).__name__}: {error})") from error
    return found


def _embedder(name: str) -> Any:
    from aicache.embedders import default_embedder, resolve_embedder

    if name == "none":
        return None
    return default_embedder() if name == "default" else resolve_embedder(name)


# ---------------------------------------------------------------------------------------------- progress


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class _Progress:
    """A bar of tqdm where that is installed, else one line on stderr that counts."""

    def __init__(self, total: int) -> None:
        self._bar: Any = None
        # Nothing where nobody looks at it: a file would get a line for each question.
        self._write: Callable[[str], object] = sys.stderr.write if sys.stderr.isatty() else len
        try:
            bars = importlib.import_module("tqdm")
        except ImportError:
            return
        self._bar = bars.tqdm(total=total, unit="question", disable=None)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is None:
            self._write("\n")
        else:
            self._bar.close()

    def show(self, done: int, total: int) -> None:
        """Say how many are done."""
        if self._bar is None:
            self._write(f"\r{done} of {total} questions")
        else:
            self._bar.update(done - self._bar.n)
