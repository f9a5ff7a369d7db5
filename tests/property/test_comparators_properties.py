"""What holds for every comparator and every two answers."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from aicache.comparators import (
    Comparator,
    Equal,
    Facts,
    InOrder,
    Judge,
    Meaning,
    Reading,
    SameWords,
    Structural,
    default_comparator,
    reading,
)


class Bags:
    """Counts words."""

    fingerprint = "bags"

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        rows = []
        for text in texts:
            row = [0.01] * 32
            for word in text.split():
                row[sum(word.encode("utf-8", "surrogatepass")) % 32] += 1
            rows.append(row)
        return rows


COMPARATORS: list[Comparator] = [
    Equal(),
    SameWords(),
    Structural(),
    Facts(),
    Meaning(Bags(), bar=0.8),
    Judge(lambda a, b: len(a) < len(b), timeout=None),  # It depends on the order.
    InOrder(Structural(), Facts(), Meaning(Bags(), bar=0.8)),
    default_comparator(None),
    default_comparator(Bags(), bar=0.8),
]

WORDS = st.sampled_from(
    """
    It is not safe to pay 5 EUR USD 5.25 5.3 days within 30 14 on Monday Tuesday before after from Paris London to open
    close the door Anna Otto main.py test.py yes no Yes, No, x < > == ** 1. 2. - ✅ 😊 costs . . \n \n
    """.replace("\n    ", " ").split(" ")
)
TEXTS = st.one_of(st.lists(WORDS, max_size=24).map(" ".join), st.text(max_size=60))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
JSON = VALUES.map(json.dumps)
ANSWERS = st.one_of(
    st.builds(reading, TEXTS),
    st.builds(reading, JSON),
    st.builds(
        reading,
        TEXTS,
        st.one_of(st.just(b""), st.lists(VALUES, min_size=1, max_size=2).map(json.dumps).map(str.encode)),
    ),
    st.builds(Reading, st.binary(min_size=1, max_size=1)),
)


@st.composite
def near(draw: st.DrawFn) -> tuple[Reading, Reading]:
    """Two texts some words apart, so that sentences have counterparts."""
    words = draw(st.lists(WORDS, min_size=1, max_size=16))
    other = list(words)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(other) - 1)))
        other[at : at + draw(st.integers(0, 1))] = draw(st.lists(WORDS, max_size=2))
    return reading(" ".join(words)), reading(" ".join(other))


@settings(deadline=None, max_examples=250)
@given(st.one_of(st.tuples(ANSWERS, ANSWERS), near()))
def test_every_comparator_is_symmetric(answers: tuple[Reading, Reading]) -> None:
    a, b = answers
    for comparator in COMPARATORS:
        assert comparator.same(a, b) is comparator.same(b, a), comparator


@settings(deadline=None, max_examples=150)
@given(ANSWERS)
def test_no_answer_differs_from_itself(answer: Reading) -> None:
    again = Reading(answer.digest, answer.text, answer.calls)
    for comparator in COMPARATORS:
        assert comparator.same(answer, again) is not False, comparator
    assert default_comparator(Bags()).same(answer, again) is True


@settings(deadline=None, max_examples=150)
@given(VALUES.filter(lambda value: isinstance(value, dict | list)), st.integers(0, 4))
def test_json_is_the_same_however_it_is_written(value: object, indent: int) -> None:
    other = f"```json\n{json.dumps(value, indent=indent, ensure_ascii=False)}\n```"
    assert Structural().same(reading(json.dumps(value)), reading(other)) is True


@settings(deadline=None, max_examples=150)
@given(st.lists(WORDS, min_size=1, max_size=12).map(" ".join))
def test_layout_alone_never_contradicts(text: str) -> None:
    lines = [line for line in text.replace(" - ", "\n").splitlines() if line.strip()]
    assert Facts().conflict("\n".join(lines), "\n".join(f"- {line}" for line in lines)) is None
