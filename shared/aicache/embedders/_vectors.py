"""From what an embedder returns to vectors as the core keeps them."""

from __future__ import annotations

from typing import Any, Final

from aicache._errors import EmbedderError
from aicache._model import Vector

__all__ = ["to_vectors"]

_REAL_NUMBERS: Final = "fiu"
"""numpy's kinds of floats, integers and unsigned integers."""


def to_vectors(returned: Any, count: int) -> list[Vector]:
    """Unit vectors, float32, little-endian; one for each of `count` texts.

    Raises:
        EmbedderError: it is not `count` rows of real, finite numbers of which one at least is not 0.
    """
    import numpy

    try:
        rows = numpy.asarray(returned)
    except (ValueError, TypeError, RuntimeError) as error:  # Ragged rows; a tensor on another device.
        raise EmbedderError(f"the embedder returned no array but {type(returned).__name__}") from error
    if rows.dtype.kind not in _REAL_NUMBERS:
        raise EmbedderError(f"the embedder returned no numbers but {rows.dtype}")
    if rows.ndim != 2 or rows.shape[0] != count or rows.shape[1] == 0:
        raise EmbedderError(f"the embedder returned the shape {rows.shape}; it must be ({count}, dimension)")
    rows = rows.astype(numpy.float64)
    if not numpy.isfinite(rows).all():
        raise EmbedderError("the embedder returned a vector with NaN or infinity")
    # By the largest number first: squares of very large or small ones would leave the range.
    largest = numpy.abs(rows).max(axis=1, keepdims=True)
    if not largest.all():
        raise EmbedderError("the embedder returned a zero vector, which has no direction")
    rows = rows / largest
    rows /= numpy.linalg.norm(rows, axis=1, keepdims=True)
    return [row.tobytes() for row in rows.astype("<f4")]
