"""A labelled file as a stream of requests: which question comes when, and which answers are the same."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, TypeAlias

from aicache._errors import ConfigurationError

__all__ = ["ORDERS", "Order", "Scenario", "Stream", "read"]

Order: TypeAlias = Literal["random", "blocked", "file"]
ORDERS: tuple[Order, ...] = ("random", "blocked", "file")


@dataclass(frozen=True, slots=True)
class Stream:
    """Distinct questions in the order of the file, with the class of each one's answer."""

    name: str
    texts: tuple[str, ...] = field(repr=False)
    classes: tuple[int, ...] = field(repr=False)
    different: frozenset[tuple[int, int]] | None = field(default=None, repr=False)
    """Pairs of classes known to differ, smaller one first; None when all classes differ."""

    def same(self, a: int, b: int) -> bool | None:
        """Whether two questions have the same answer; None where the file does not say."""
        x, y = self.classes[a], self.classes[b]
        if x == y:
            return True
        return False if self.different is None or (min(x, y), max(x, y)) in self.different else None


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens to a stream: the order, a change of answers half-way, an unreliable comparator."""

    order: Order = "random"
    seed: int = 0
    drift: float = 0.0
    """Share of the classes whose answer is another one from half-way on."""
    noise: float = 0.0
    """Probability that the comparator calls two equal answers different."""

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


def read(path: Path) -> Stream:
    """A stream from a file: rows of text and answer class, or pairs.

    CSV or JSON lines, plain or gzip. A labelled row has `text` and one of `answer`, `class`, `label`, `intent`; a pair
    `text_a`, `text_b` and one of `same`, `label`. Of equal texts the first counts.
    """
    rows = iter(_rows(path))
    first = next(rows, None)
    if first is None:
        raise ConfigurationError("file", f"give a file with rows; {path.name} has none")
    name = path.name.split(".")[0]

    def all_rows() -> Iterator[dict[str, object]]:
        yield first
        yield from rows

    if "text_a" in first:
        return _pairs(name, all_rows(), _column(first, ("same", "label")))
    return _labelled(name, all_rows(), _column(first, ("answer", "class", "label", "intent")))


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _rows(path: Path) -> Iterator[dict[str, object]]:
    with _open(path) as lines:
        if ".csv" in path.suffixes:
            yield from csv.DictReader(lines)
        else:
            yield from (json.loads(line) for line in lines if line.strip())


def _column(row: dict[str, object], names: Sequence[str]) -> str:
    found = next((name for name in names if name in row), None)
    if found is None:
        raise ConfigurationError("file", f"give each row one of the columns {', '.join(names)}")
    return found


def _labelled(name: str, rows: Iterator[dict[str, object]], column: str) -> Stream:
    answers: dict[str, str] = {}
    for row in rows:
        answers.setdefault(str(row["text"]), str(row[column]))
    number = {answer: at for at, answer in enumerate(sorted(set(answers.values())))}
    return Stream(name, tuple(answers), tuple(number[answer] for answer in answers.values()))


def _pairs(name: str, rows: Iterator[dict[str, object]], column: str) -> Stream:
    """Questions connected by a chain of equal pairs are one class; an unequal pair makes two classes differ."""
    pairs = [(str(row["text_a"]), str(row["text_b"]), row[column]) for row in rows]
    texts = list(dict.fromkeys(text for a, b, _ in pairs for text in (a, b)))
    index = {text: at for at, text in enumerate(texts)}
    parent = list(range(len(texts)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    for a, b, label in pairs:
        if _is_same(label):
            parent[root(index[a])] = root(index[b])
    classes = [root(at) for at in range(len(texts))]
    unlike = {
        (min(x, y), max(x, y))
        for a, b, label in pairs
        if not _is_same(label) and (x := classes[index[a]]) != (y := classes[index[b]])
    }
    return Stream(name, tuple(texts), tuple(classes), frozenset(unlike))


def _is_same(label: object) -> bool:
    return label is True or label == 1 or str(label).casefold() in {"1", "true", "yes", "same"}
