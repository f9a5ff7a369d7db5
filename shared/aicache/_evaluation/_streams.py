"""A labelled file as a stream of requests: which question comes when, and which answers are the same."""

from __future__ import annotations

import csv
import gzip
import json
import random
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Final, Literal, TypeAlias

from aicache._errors import ConfigurationError

__all__ = ["ORDERS", "Order", "Scenario", "Stream", "read"]

Order: TypeAlias = Literal["random", "blocked", "file"]
ORDERS: tuple[Order, ...] = ("random", "blocked", "file")

_Row: TypeAlias = dict[str, object]

_ENCODING: Final = "utf-8-sig"
"""UTF-8; some programs begin such a file with a mark."""
_SAME: Final = frozenset({"1", "1.0", "true", "yes", "same"})
_DIFFERENT: Final = frozenset({"0", "0.0", "false", "no", "different"})


@dataclass(frozen=True, slots=True)
class Stream:
    """Distinct questions in the order of the file, with the class of each one's answer."""

    name: str
    texts: tuple[str, ...] = field(repr=False)
    classes: tuple[int, ...] = field(repr=False)
    different: frozenset[tuple[int, int]] | None = field(default=None, repr=False)
    """Pairs of classes known to differ, smaller one first; None when all classes differ."""
    groups: tuple[int, ...] | None = field(default=None, repr=False)
    """Of pairs: questions of two groups have no relation that the file tells. None: all are of one group."""

    def same(self, x: int, y: int) -> bool | None:
        """Whether two classes have the same answer; None where the file does not say."""
        if x == y:
            return True
        return False if self.different is None or (min(x, y), max(x, y)) in self.different else None

    @property
    def is_all_same(self) -> bool:
        """Whether no two questions are known to have different answers, so that nothing can be wrong."""
        return len(set(self.classes)) < 2 if self.different is None else not self.different

    def group(self, question: int) -> int:
        """The group of a question."""
        return 0 if self.groups is None else self.groups[question]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens to a stream: the order, a change of answers half-way, an unreliable comparator."""

    order: Order = "random"
    seed: int = 0
    drift: float = 0.0
    """Share of the classes whose answer is another one from half-way on."""
    noise: float = 0.0
    """Probability that the comparator calls two equal answers different."""

    def __post_init__(self) -> None:
        for name in ("drift", "noise"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ConfigurationError(name, f"give a share in [0, 1]; got {share!r}")

    def sequence(self, stream: Stream) -> list[int]:
        """The questions in the order in which they come. `blocked`: class by class, the classes in random order."""
        chance = random.Random(f"order {self.seed}")  # noqa: S311 - a simulation
        order = list(range(len(stream.texts)))
        if self.order == "random":
            chance.shuffle(order)
        elif self.order == "blocked":
            classes = sorted(set(stream.classes))
            chance.shuffle(classes)
            rank = {name: at for at, name in enumerate(classes)}
            chance.shuffle(order)
            order.sort(key=lambda question: rank[stream.classes[question]])
        return order

    def changing(self, stream: Stream) -> frozenset[int]:
        """The classes whose answer changes."""
        classes = sorted(set(stream.classes))
        chance = random.Random(f"drift {self.seed}")  # noqa: S311 - a simulation
        return frozenset(chance.sample(classes, round(self.drift * len(classes))))


def read(path: Path, limit: int | None = None) -> Stream:
    """A stream from a file: rows of text and answer class, or pairs.

    CSV, TSV or JSON lines, plain or gzip. A labelled row has `text` and one of `answer`, `class`, `label`, `intent`; a
    pair `text_a`, `text_b` and one of `same`, `label`. Of equal texts the first counts. With a limit, so many rows are
    drawn, always the same ones, and stay in their order.

    Raises:
        ConfigurationError: there is no such file, or it is none of these.
    """
    if not path.is_file():
        raise ConfigurationError("file", f"{path} is a folder" if path.is_dir() else f"there is no file {path}")
    if limit is not None and limit < 1:
        raise ConfigurationError("limit", f"give a number of rows, at least 1; got {limit}")
    try:
        stream = _stream(path, _rows(path) if limit is None else _some(list(_rows(path)), limit))
    except (UnicodeDecodeError, gzip.BadGzipFile, json.JSONDecodeError, csv.Error, EOFError, zlib.error) as error:
        raise ConfigurationError("file", f"{path.name} is no CSV, TSV or JSON lines file in UTF-8 ({error})") from None
    except OSError as error:
        raise ConfigurationError("file", f"{path.name} cannot be read ({error.strerror})") from None
    if stream.is_all_same:
        raise ConfigurationError(
            "file", f"give questions with different answers; those of {path.name} are all the same, and no hit is wrong"
        )
    return stream


def _stream(path: Path, rows: Iterator[_Row]) -> Stream:
    first = next(rows, None)
    if first is None:
        raise ConfigurationError("file", f"give a file with rows; {path.name} has none")
    name = path.name.split(".")[0]
    if "text_a" in first:
        return _pairs(name, chain([first], rows), _column(first, ("same", "label")))
    _column(first, ("text",))
    return _labelled(name, chain([first], rows), _column(first, ("answer", "class", "label", "intent")))


def _some(rows: Sequence[_Row], limit: int) -> Iterator[_Row]:
    """Not the first ones: a file is often sorted by class."""
    chance = random.Random("limit")  # noqa: S311 - a sample
    places = sorted(chance.sample(range(len(rows)), min(limit, len(rows))))
    return (rows[at] for at in places)


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding=_ENCODING, newline="")
    return path.open(encoding=_ENCODING, newline="")


def _rows(path: Path) -> Iterator[_Row]:
    with _open(path) as lines:
        if {".csv", ".tsv"} & set(path.suffixes):
            yield from csv.DictReader(lines, delimiter="\t" if ".tsv" in path.suffixes else ",")
            return
        for line in lines:
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ConfigurationError("file", f"give an object in each line of {path.name}")
                yield row


def _column(row: _Row, names: Sequence[str]) -> str:
    found = next((name for name in names if name in row), None)
    if found is None:
        wanted = f"one of the columns {', '.join(names)}" if len(names) > 1 else f"a column {names[0]}"
        there = ", ".join(repr(str(name))[:40] for name in list(row)[:8])
        raise ConfigurationError("file", f"give each row {wanted}; the first one has {there}")
    return found


def _filled(rows: Iterable[_Row], *columns: str) -> Iterator[list[str]]:
    """What stands in these columns of each row; in the last one something must. A short row has no answer at all."""
    for number, row in enumerate(rows, 1):
        found = [row.get(column) for column in columns]
        empty = [column for column, value in zip(columns, found, strict=True) if value is None]
        if empty or not str(found[-1]).strip():
            raise ConfigurationError(
                "file", f"fill the column {(empty or columns)[-1]} of each row; row {number} is without"
            )
        yield [str(value) for value in found]


def _labelled(name: str, rows: Iterable[_Row], column: str) -> Stream:
    answers: dict[str, str] = {}
    for text, answer in _filled(rows, "text", column):
        answers.setdefault(text, answer)
    number = {answer: at for at, answer in enumerate(sorted(set(answers.values())))}
    return Stream(name, tuple(answers), tuple(number[answer] for answer in answers.values()))


def _pairs(name: str, rows: Iterable[_Row], column: str) -> Stream:
    """Questions connected by a chain of equal pairs are one class; an unequal pair makes two classes differ."""
    pairs = [(a, b, _is_same(label, column)) for a, b, label in _filled(rows, "text_a", "text_b", column)]
    texts = list(dict.fromkeys(text for a, b, _ in pairs for text in (a, b)))
    index = {text: at for at, text in enumerate(texts)}
    classes = _connected(len(texts), ((index[a], index[b]) for a, b, same in pairs if same))
    groups = _connected(len(texts), ((index[a], index[b]) for a, b, _ in pairs))
    unlike = {
        (min(x, y), max(x, y))
        for a, b, same in pairs
        if not same and (x := classes[index[a]]) != (y := classes[index[b]])
    }
    return Stream(name, tuple(texts), classes, frozenset(unlike), groups)


def _connected(count: int, pairs: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """For each of so many numbers the one that stands for all that are connected with it."""
    parent = list(range(count))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    for a, b in pairs:
        parent[root(a)] = root(b)
    return tuple(root(at) for at in range(count))


def _is_same(label: str, column: str) -> bool:
    said = label.strip().casefold()
    if said not in _SAME | _DIFFERENT:
        raise ConfigurationError(
            "file", f"write 1, true, yes or same, or else 0, false, no or different into {column}; got {label[:40]!r}"
        )
    return said in _SAME
