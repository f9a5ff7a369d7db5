"""The embedder port: text to vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

__all__ = ["Embedder"]


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors. Safe to call from any thread.

    An embedder may also have `async def aembed(self, texts)`, the same without blocking; else async callers
    run `embed` in a worker thread.

    It may also have `immediate`: True while a call takes no longer than a computation, with nothing to load and nobody
    to wait for. Then `embed` is called where the caller stands, and no thread watches over the time it takes.
    """

    @property
    def fingerprint(self) -> str:
        """Names the model AND everything that changes its vectors (weights, quantisation, prefix, pooling).

        Two embedders with one fingerprint must give the same vectors; vectors of different fingerprints are
        never compared. Contains no secret: it is stored and shown.
        """

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]] | Any:
        """One vector a text, in order: shape (len(texts), dimension), any real dtype, any length but 0.

        Raises:
            QueryTooLongError: a text exceeds what the model takes; it must never be truncated.
        """
