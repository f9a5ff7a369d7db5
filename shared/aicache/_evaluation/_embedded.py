"""The vectors of a stream, computed once, and an embedder that answers from them."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aicache._errors import ConfigurationError, EmbedderError, QueryTooLongError, UnknownWordsError
from aicache._evaluation._streams import Stream
from aicache._model import Prompt, Turn
from aicache._prompt import split

if TYPE_CHECKING:
    from aicache.embedders.base import Embedder

__all__ = ["Embedded", "TableEmbedder", "embed", "prompt_of"]

_AT_ONCE = 32


def prompt_of(text: str, group: int = 0) -> Prompt:
    """A question as an adapter would hand it over. Another group is another model: their answers never mix."""
    return Prompt("text", (Turn("human", text),), model=b"eval %d" % group)


def _asked(stream: Stream) -> list[str]:
    """What a cache embeds of each question: not always all of it. "" where it matches exactly only."""
    return [split(prompt_of(text), question=None).text for text in stream.texts]


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """One vector a question, in the order of the stream."""

    fingerprint: str
    """Of the embedder that made them."""
    vectors: Any = field(repr=False)
    """float32; zeros where there is none."""
    refused: frozenset[int] = frozenset()
    """Questions that the embedder does not take (too long, or words outside its vocabulary)."""

    def save(self, path: Path, stream: Stream) -> None:
        """Write them to a file, together with what they belong to."""
        import numpy

        refused = numpy.array(sorted(self.refused), numpy.int64)
        with path.open("wb") as file:
            numpy.savez(
                file, vectors=self.vectors, refused=refused, belongs=_belongs(stream), fingerprint=self.fingerprint
            )

    @staticmethod
    def load(path: Path, stream: Stream, fingerprint: str | None = None) -> Embedded:
        """The vectors of a file.

        Raises:
            ConfigurationError: it holds those of other questions, or of another embedder than the one named.
        """
        import numpy

        try:
            with numpy.load(path) as file:
                if str(file["belongs"]) != _belongs(stream):
                    raise ConfigurationError("vectors", f"{path.name} belongs to other questions; name another file")
                made = Embedded(str(file["fingerprint"]), file["vectors"], frozenset(file["refused"].tolist()))
        except (OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigurationError("vectors", f"{path.name} cannot be read ({type(error).__name__})") from None
        except ValueError as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError("vectors", f"{path.name} is no file of vectors; name another file") from None
        if fingerprint not in {None, made.fingerprint}:
            raise ConfigurationError("vectors", f"{path.name} was made by {made.fingerprint}; name another file")
        return made


def _belongs(stream: Stream) -> str:
    """A hash over the questions. Their order counts."""
    return hashlib.sha256("\0".join(stream.texts).encode("utf-8", "surrogatepass")).hexdigest()


def embed(stream: Stream, embedder: Embedder, tick: Callable[[int], None] = lambda _: None) -> Embedded:
    """The vectors of all questions. `tick` is told how many more there are.

    Raises:
        EmbedderError: the embedder takes none of them, or fails.
    """
    import numpy

    asked = _asked(stream)
    rows: list[Any] = []
    for start in range(0, len(asked), _AT_ONCE):
        try:
            rows += _batch(embedder, asked[start : start + _AT_ONCE])
        except Exception as error:
            raise EmbedderError(f"the embedder failed ({type(error).__name__}: {error})") from error
        tick(len(asked[start : start + _AT_ONCE]))
    first = next((row for row in rows if row is not None), None)
    if first is None:
        raise EmbedderError("the embedder takes none of the questions of this file")
    vectors = numpy.array([numpy.zeros_like(first) if row is None else row for row in rows], numpy.float32)
    refused = frozenset(at for at, row in enumerate(rows) if row is None)
    return Embedded(embedder.fingerprint, vectors, refused)


def _batch(embedder: Embedder, texts: Sequence[str]) -> list[Any]:
    if all(texts):
        try:
            return list(embedder.embed(texts))
        except (QueryTooLongError, UnknownWordsError):
            pass  # One of them; it must not cost the others.
    rows: list[Any] = []
    for text in texts:
        try:
            rows.append(embedder.embed([text])[0] if text else None)
        except (QueryTooLongError, UnknownWordsError):
            rows.append(None)
    return rows


class TableEmbedder:
    """Answers from vectors computed before, so that a replay takes no time for them and any process can run it."""

    def __init__(self, stream: Stream, embedded: Embedded) -> None:
        self._embedded = embedded
        self._row = {text: at for at, text in enumerate(_asked(stream))}

    @property
    def fingerprint(self) -> str:
        """That of the embedder which made the vectors."""
        return self._embedded.fingerprint

    @property
    def immediate(self) -> bool:
        """True: it looks up."""
        return True

    def embed(self, texts: Sequence[str]) -> Any:
        """One vector a text.

        Raises:
            QueryTooLongError: the embedder did not take this text.
        """
        rows = [self._row[text] for text in texts]
        if not self._embedded.refused.isdisjoint(rows):
            raise QueryTooLongError("The embedder did not take this text.")
        return self._embedded.vectors[rows]
