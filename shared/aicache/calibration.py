"""How often a comparator errs on the answers of YOUR model, measured by asking it the same questions twice.

    found = calibrate(model.invoke, questions, embedder=embedder)
    found.save("calibration.json")
    cache = AICache(max_error_rate=0.02, calibration="calibration.json")

A model words its answer anew each time. A comparator that calls such answers different makes the cache think it is
wrong more often than it is, and serve less; told how often that happens, the cache takes it off.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from aicache._errors import AICacheError, ConfigurationError, EmbedderError, QueryTooLongError, UnknownWordsError
from aicache._learned import Comparator, Floor, Reading
from aicache._policy import is_number
from aicache._scopes import bypass
from aicache.comparators import (
    Facts,
    InOrder,
    Meaning,
    SameWords,
    Structural,
    default_comparator,
    reading,
    to_comparator,
)
from aicache.comparators._loop import PrivateLoop, loop_is_running
from aicache.comparators._models import text_of, to_ask

if TYPE_CHECKING:
    from aicache.embedders.base import Embedder

__all__ = ["Calibration", "calibrate"]

VERSION: Final = 1
"""Of the file's format."""

APART: Final = 0.6
"""Questions whose cosine is below this have different answers."""

NEIGHBOURS: Final = 4
"""With how many others each question's answer is compared: a judge is asked once for each pair."""

BARS: Final = tuple(step / 100 for step in range(70, 99))
"""What is tried as a bar. Below these, answers to neighbouring questions pass (docs/comparators.md)."""

WORSE: Final = 5.0
"""How much worse it is to take a different answer for the same than the other way round: one is wrong, one a miss."""

LOWER: Final = 0.2
"""What a bar lower by 1 costs: to go down by .1 must win back 2 % of the rewordings. Answers to neighbouring questions,
of which a list of questions has few, are what a low bar lets through."""

FEWEST: Final = 20
"""Pairs of reworded answers from which on a bar is recommended."""

FAILURES: Final = 3
"""After so many failed questions in a row the model is not asked any more."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured. Holds no question and no answer."""

    floor: Floor
    """How often the comparator errs, in shares of the pairs that it can tell."""
    bar: float | None = None
    """The cosine from which on two answers mean the same; None where the comparator was given or the pairs were few."""
    questions: int = 0
    """Questions that were answered."""
    false_different_at_most: float = 1.0
    """The upper end of the 95 % interval (Wilson) of `floor.false_different`."""
    unclear: float = 0.0
    """Share of the pairs of answers to one question that the comparator could not tell."""
    embedder: str | None = None
    """The fingerprint of the embedder that the bar belongs to."""

    def save(self, path: str | PathLike[str]) -> None:
        """Write it to a small JSON file.

        Raises:
            ConfigurationError: the file cannot be written.
        """
        content = {
            "version": VERSION,
            "false_different": self.floor.false_different,
            "false_different_at_most": self.false_different_at_most,
            "false_same": self.floor.false_same,
            "unclear": self.unclear,
            "questions": self.questions,
            "bar": self.bar,
            "embedder": self.embedder,
        }
        try:
            Path(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise _bad_file(path, f"cannot be written ({type(error).__name__})") from error

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read it from a file that `save` wrote.

        Raises:
            ConfigurationError: there is no such file, or it holds something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise _bad_file(path, "does not exist: make it with `aicache calibrate`") from None
        except OSError as error:
            raise _bad_file(path, f"cannot be read ({type(error).__name__})") from error
        except ValueError:
            raise _bad_file(path, "is no JSON: make it anew with `aicache calibrate`") from None
        if not isinstance(content, dict) or content.get("version") != VERSION:
            raise _bad_file(path, f"is no calibration of version {VERSION}: make it anew with `aicache calibrate`")
        return cls._of(path, content)

    @classmethod
    def _of(cls, path: str | PathLike[str], content: dict[str, Any]) -> Self:
        shares: dict[str, Any] = {name: content.get(name) for name in _SHARES}
        bar, questions, embedder = (content.get(name) for name in ("bar", "questions", "embedder"))
        if (
            not all(is_number(share) and 0 <= share <= 1 for share in shares.values())
            or max(shares["false_different"], shares["false_same"]) >= 0.5
            or not (bar is None or (is_number(bar) and 0 < bar <= 1))
            or not (type(questions) is int and questions >= 0)
            or not (embedder is None or isinstance(embedder, str))
        ):
            raise _bad_file(path, "holds values out of range: make it anew with `aicache calibrate`")
        return cls(
            Floor(shares["false_different"], shares["false_same"]),
            bar,
            questions,
            shares["false_different_at_most"],
            shares["unclear"],
            embedder,
        )


_SHARES: Final = ("false_different", "false_different_at_most", "false_same", "unclear")


def _bad_file(path: str | PathLike[str], problem: str) -> ConfigurationError:
    return ConfigurationError("calibration", f"the file {Path(path).name} {problem}")


def calibrate(
    ask: Any,
    questions: Sequence[str],
    *,
    comparator: Any = None,
    embedder: Embedder | None = None,
    repeats: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Ask a model each question more than once and see how often the comparator errs. It blocks until all is done.

    Caches of this library are neither read nor written meanwhile (as in `bypass()`). Answers to the same question are
    taken for the same; those to questions that are far apart for different ones. A question that the model fails to
    answer is left out.

    Args:
        ask: a function from a question to its answer, sync or async, or a chat model with `invoke` or `complete`.
        questions: some 50 or more, such as users ask. Repeated ones count once.
        comparator: what the option `comparator` of the cache takes; None for the default one, to which a bar is fitted.
        embedder: the one the cache uses; it tells which questions are far apart, and the bar is in its scale.
        repeats: how often each question is asked, at least 2.
        on_progress: told after each question how many are done, and of how many.

    Raises:
        ConfigurationError: an argument is wrong, or the comparator errs too often to be of use.
        EmbedderError: the embedder failed.
        AICacheError: the model failed three times in a row.
    """
    if isinstance(questions, str):
        raise ConfigurationError("questions", "give a list of texts, not one text")
    asked = list(dict.fromkeys(question for question in questions if question.strip()))
    if len(asked) < 2:
        raise ConfigurationError("questions", f"give at least two different ones; got {len(asked)}")
    if type(repeats) is not int or repeats < 2:
        raise ConfigurationError("repeats", f"give a whole number of at least 2; got {repeats!r}")
    fixed = None if comparator is None and embedder is not None else to_comparator(comparator, embedder)
    # Before the model is asked, which may cost money: an embedder that fails ends it here.
    vectors = None if embedder is None else _vectors(asked, embedder)
    answered = _answered(ask, asked, repeats, on_progress or _silent)
    if not answered:
        raise AICacheError("the model answered none of the questions")
    same = [pair for _, answers in answered for pair in combinations(answers, 2)]
    other = _other_pairs(answered, vectors)
    bar = None
    if fixed is None:
        assert embedder is not None
        bar = _bar(embedder, same, other)
        fixed = default_comparator(embedder, bar=bar)
    fingerprint = embedder.fingerprint if bar is not None and embedder is not None else None
    return _measured(fixed, same, other, Calibration(Floor(), bar, len(answered), embedder=fingerprint))


def _silent(done: int, total: int, /) -> None:
    """Say nothing."""


# --------------------------------------------------------------------------------------------- answers

_Pairs = Sequence[tuple[Reading, Reading]]


@dataclass(slots=True)
class _Asker:
    """Asks the model outside all caches; what is awaited runs on one loop, for clients keep connections."""

    ask: Callable[[str], Any]
    loop: PrivateLoop = field(default_factory=PrivateLoop)

    def answers(self, question: str, repeats: int) -> list[Reading]:
        """The answers, as they are compared."""
        return [reading(self._text(question)) for _ in range(repeats)]

    def _text(self, question: str) -> str:
        with bypass():
            reply = self.ask(question)
            if inspect.isawaitable(reply):
                reply = self._awaited(reply)
        text = text_of(reply)
        if text is None:
            raise ConfigurationError("ask", f"it must return a text; it returned {type(reply).__name__}")
        return text

    def _awaited(self, reply: Awaitable[Any]) -> Any:
        if loop_is_running():
            if inspect.iscoroutine(reply):
                reply.close()
            raise ConfigurationError("ask", "an event loop runs here: call `asyncio.to_thread(calibrate, ...)`")
        return self.loop.run(reply, None)


def _answered(
    ask: Any, questions: Sequence[str], repeats: int, say: Callable[[int, int], None]
) -> list[tuple[str, list[Reading]]]:
    """Each question that was answered, with its answers."""
    function = to_ask(ask)
    if function is None:
        raise ConfigurationError("ask", f"give a function or a chat model; got {type(ask).__name__}")
    found: list[tuple[str, list[Reading]]] = []
    failures = 0
    asker = _Asker(function)
    with contextlib.closing(asker.loop):
        for number, question in enumerate(questions, 1):
            try:
                found.append((question, asker.answers(question, repeats)))
                failures = 0
            except ConfigurationError:
                raise
            except Exception as error:
                failures += 1
                if failures == FAILURES:
                    # The text of a foreign exception may quote the question; its type does not.
                    raise AICacheError(
                        f"the model failed {FAILURES} times in a row ({type(error).__name__})"
                    ) from error
            say(number, len(questions))
    return found


def _other_pairs(answered: Sequence[tuple[str, list[Reading]]], vectors: Mapping[str, Any] | None) -> _Pairs:
    """Answers to different questions: each with the next ones that are far apart from it."""
    pairs = []
    for at, (question, answers) in enumerate(answered):
        following = (*answered[at + 1 :], *answered[:at])
        far = (
            others[0]
            for other, others in following
            if vectors is None or _apart(vectors.get(question), vectors.get(other))
        )
        pairs += [(answers[0], other) for other in islice(far, NEIGHBOURS)]
    return pairs


def _vectors(questions: Sequence[str], embedder: Embedder) -> Mapping[str, Any]:
    """Unit vectors of those questions that can be embedded."""
    import numpy

    from aicache.embedders._vectors import to_vectors

    found: dict[str, Any] = {}
    for question in questions:
        with contextlib.suppress(QueryTooLongError, UnknownWordsError):
            (vector,) = to_vectors(embedder.embed([question]), 1)
            found[question] = numpy.frombuffer(vector, dtype="<f4")
    return found


def _apart(a: Any, b: Any) -> bool:
    return a is not None and b is not None and float(a @ b) < APART


# ------------------------------------------------------------------------------------------ figures


def _measured(comparator: Comparator, same: _Pairs, other: _Pairs, found: Calibration) -> Calibration:
    told = [said for said in _said(comparator, same) if said is not None]
    if not told:
        raise ConfigurationError(
            "comparator", "it could tell of no two answers whether they are the same: choose another"
        )
    others = [said for said in _said(comparator, other) if said is not None]
    false_different = told.count(False) / len(told)
    false_same = others.count(True) / len(others) if others else 0.0
    for share, what in ((false_different, "answers to one question different"), (false_same, "other answers the same")):
        if share >= 0.5:
            raise ConfigurationError("comparator", f"it calls {share:.0%} of the {what}: choose another")
    return Calibration(
        Floor(false_different, false_same),
        found.bar,
        found.questions,
        _wilson(told.count(False), len(told)),
        1 - len(told) / len(same),
        found.embedder,
    )


def _said(comparator: Comparator, pairs: _Pairs) -> Iterator[bool | None]:
    for a, b in pairs:
        try:
            yield comparator.same(a, b)
        except Exception:  # noqa: BLE001 - what a comparator raises counts as None, here as in a cache
            yield None


def _wilson(count: int, total: int) -> float:
    """The upper end of the 95 % interval of a share."""
    z = 1.96
    share = count / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return min(1.0, (middle + spread) / (1 + z * z / total))


def _bar(embedder: Embedder, same: _Pairs, other: _Pairs) -> float | None:
    """The bar with the least cost on the pairs that only their meaning can tell; of several the highest."""
    before = InOrder(SameWords(), Structural(), Facts())
    meaning = Meaning(embedder)
    reworded, different = (_cosines(before, meaning, pairs) for pairs in (same, other))
    if len(reworded) < FEWEST:
        return None

    def cost(bar: float) -> float:
        missed = sum(cosine < bar for cosine in reworded) / len(reworded)
        wrong = sum(cosine >= bar for cosine in different) / max(1, len(different))
        return round(missed + WORSE * wrong - LOWER * bar, 9)

    return min(reversed(BARS), key=cost)


def _cosines(before: Comparator, meaning: Meaning, pairs: Iterable[tuple[Reading, Reading]]) -> list[float]:
    found = []
    for a, b in pairs:
        if before.same(a, b) is not None:
            continue
        try:
            cosine = meaning.similarity(a.text, b.text)
        except EmbedderError:
            continue
        if cosine is not None:
            found.append(cosine)
    return found
