"""What an embedder returns becomes unit vectors, or an error that says what was wrong."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aicache._errors import EmbedderError
from aicache.embedders._vectors import to_vectors

finite = st.floats(allow_nan=False, allow_infinity=False)


def unpack(vector: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(vector) // 4}f", vector)


def test_a_vector_has_length_one_and_keeps_its_direction() -> None:
    (vector,) = to_vectors([[3.0, -4.0]], 1)
    assert unpack(vector) == pytest.approx((0.6, -0.8))


@settings(deadline=None)
@given(st.lists(finite, min_size=1, max_size=20))
def test_any_finite_vector_but_zero_becomes_a_unit_vector(numbers: list[float]) -> None:
    if not any(numbers):
        with pytest.raises(EmbedderError, match="zero"):
            to_vectors([numbers], 1)
        return
    (vector,) = to_vectors([numbers], 1)
    assert len(vector) == 4 * len(numbers)
    assert math.sqrt(sum(number**2 for number in unpack(vector))) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    "returned", [np.ones((1, 3), dtype=dtype) for dtype in ("float16", "float32", "float64", "int8", "uint8")]
)
def test_every_real_number_type_is_taken(returned: Any) -> None:
    assert unpack(to_vectors(returned, 1)[0]) == pytest.approx([1 / math.sqrt(3)] * 3)


def test_texts_keep_their_order() -> None:
    first, second = to_vectors([[1, 0], [0, 1]], 2)
    assert (unpack(first), unpack(second)) == ((1.0, 0.0), (0.0, 1.0))


@pytest.mark.parametrize(
    ("returned", "complaint"),
    [
        ([[1.0, math.nan]], "NaN"),
        ([[math.inf, 0.0]], "infinity"),
        ([[0.0, 0.0]], "zero"),
        ([1.0, 2.0], "shape"),
        ([[1.0], [2.0]], "shape"),
        ([], "shape"),
        ([[]], "shape"),
        ([[[1.0]]], "shape"),
        ([["secret question"]], "no numbers"),
        ([[1j]], "no numbers"),
        ([[True]], "no numbers"),
        ([None], "no numbers"),
        (None, "no numbers"),
        ([[1.0, [2.0]]], "no array"),
    ],
)
def test_what_is_no_usable_vector_is_refused_in_words_without_the_text(returned: Any, complaint: str) -> None:
    with pytest.raises(EmbedderError, match=complaint) as caught:
        to_vectors(returned, 1)
    assert "secret" not in str(caught.value)
