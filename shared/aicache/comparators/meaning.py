"""Answers that mean the same in other words: the cosine of their embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aicache._errors import ConfigurationError, QueryTooLongError, UnknownWordsError
from aicache._learned import Reading
from aicache._memo import Memo
from aicache._policy import is_number
from aicache.comparators._texts import plain, sentences, without_pictures

if TYPE_CHECKING:
    from aicache.embedders.base import Embedder

__all__ = ["DEFAULT_BAR", "Meaning"]

DEFAULT_BAR: Final = 0.81
"""Chosen for the default embedder (int8 MiniLM) behind `Structural` and `Facts`; figures in docs/comparators.md."""

MOST_PIECES: Final = 32
"""Longer answers than these many pieces are not compared."""


class Meaning:
    """Answers are the same when the cosine of their embeddings reaches a bar.

    Answers longer than the embedder takes are both cut between sentences into the same number of pieces of about the
    same length; each piece then needs a counterpart in the other answer. Cosines cannot see facts: ask `Facts` first.

    Args:
        embedder: what makes the vectors.
        bar: the cosine from which on two answers mean the same, in (0, 1]; None for the one measured with MiniLM.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    def __init__(self, embedder: Embedder, bar: float | None = None) -> None:
        if not callable(getattr(embedder, "embed", None)) or isinstance(embedder, type):
            raise ConfigurationError("embedder", f"give an Embedder; got {type(embedder).__name__}")
        if bar is not None and not (is_number(bar) and 0 < bar <= 1):
            raise ConfigurationError("bar", f"give a cosine in (0, 1]; got {bar!r}")
        self._embedder = embedder
        self._bar = DEFAULT_BAR if bar is None else bar
        self._memo: Memo[str, Any] = Memo(512)

    @property
    def bar(self) -> float:
        """The cosine from which on two answers mean the same."""
        return self._bar

    @property
    def immediate(self) -> bool:
        """False."""
        return False

    def same(self, a: Reading, b: Reading, /) -> bool | None:
        """Whether they mean the same; None where one has no text, calls tools, or cannot be embedded.

        Raises:
            EmbedderError: the embedder failed; another time it may not.
        """
        if a.digest == b.digest:
            return True
        if a.calls or b.calls:
            return None
        found = self.similarity(a.text, b.text)
        return None if found is None else found >= self._bar

    def similarity(self, a: str, b: str) -> float | None:
        """The cosine of two answers, of long ones that of the piece with the farthest counterpart; None for none.

        Raises:
            EmbedderError: the embedder failed.
        """
        left, right = plain(a), plain(b)
        if not left or not right:
            return None
        if left == right:
            return 1.0
        pieces = 1
        while pieces <= MOST_PIECES:
            try:
                return self._pieces_alike(_cut(left, pieces), _cut(right, pieces))
            except QueryTooLongError:
                pieces *= 2
            except UnknownWordsError:
                return None
        return None

    def _pieces_alike(self, a: list[str], b: list[str]) -> float:
        import numpy

        left, right = (numpy.stack([self._vector(piece) for piece in pieces]) for pieces in (a, b))
        cosines = left @ right.T
        return float(min(cosines.max(axis=0).min(), cosines.max(axis=1).min()))

    def _vector(self, text: str) -> Any:
        known = self._memo.get(text)
        if known is None:
            try:
                known = self._embedded(text)
            except UnknownWordsError:
                if (bare := without_pictures(text)) in {"", text}:
                    raise
                known = self._embedded(bare)
            self._memo.put(text, known)
        return known

    def _embedded(self, text: str) -> Any:
        import numpy

        from aicache.embedders._vectors import to_vectors

        (vector,) = to_vectors(self._embedder.embed([text]), 1)
        return numpy.frombuffer(vector, dtype="<f4")


def _cut(text: str, count: int) -> list[str]:
    """The text in at most so many pieces of about the same length, cut between sentences."""
    if count == 1:
        return [text]
    target = len(text) / count
    pieces: list[list[str]] = [[] for _ in range(count)]
    behind = 0
    for sentence in sentences(text):
        # Where its middle lies.
        pieces[min(count - 1, int((behind + len(sentence) / 2) / target))].append(sentence)
        behind += len(sentence) + 1
    return [" ".join(piece) for piece in pieces if piece]
