"""English function words, negations, contractions and number words. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from aicache._guards._base import word_set

__all__ = [
    "CLAUSE_WORDS",
    "CONTRACTIONS",
    "FUNCTION_WORDS",
    "NEGATIONS",
    "NUMBER_WORDS",
    "ORDINAL_WORDS",
    "SCALE_WORDS",
]


FUNCTION_WORDS: Final = word_set(
    """
    a an the and or but nor so if then than that this these those of to in on at by for from with into onto over
    under about as is are was were be been being am do does did done doing have has had having can could will would
    shall should may might must i me my mine you your yours he him his she her hers it its we us our ours they them
    their theirs who whom whose which what when where why how there here just also too very please not no
    """
)
"""Words without content of their own."""

CLAUSE_WORDS: Final = word_set(
    "but while whereas although though without if when because instead than unless until before after"
)
"""Words that join two clauses, each with a part of its own to play."""

NEGATIONS: Final = word_set(
    """
    not no never without none neither nor nobody nothing nowhere non
    hardly barely unless except excluding
    """
)

CONTRACTIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        **{
            f"{verb}{ending}": (verb, "not")
            for verb in word_set("is are was were do does did has have had would should could must need might ai")
            for ending in ("n't", "nt")
        },
        **dict.fromkeys(("can't", "cant", "cannot"), ("can", "not")),
        **dict.fromkeys(("won't", "wont"), ("will", "not")),
        **dict.fromkeys(("shan't", "shant"), ("shall", "not")),
        **{f"{word}'s": (word, "is") for word in word_set("what where who how when why that there here it he she let")},
        **{f"{word}s": (word, "is") for word in word_set("what where who how when why that there") if word != "that"},
        **{f"{word}'re": (word, "are") for word in word_set("you we they what where how who")},
        **{f"{word}'ve": (word, "have") for word in word_set("i you we they should could would might")},
        **{f"{word}'ll": (word, "will") for word in word_set("i you we they he she it that there what")},
        **{f"{word}'d": (word, "would") for word in word_set("i you we they he she it that how what")},
        "i'm": ("i", "am"),
        "im": ("i", "am"),
        "ive": ("i", "have"),
        "unable": ("not", "able"),
        "impossible": ("not", "possible"),
        "incorrect": ("not", "correct"),
        "wrong": ("not", "correct"),
        "wrongly": ("not", "correctly"),
        "incorrectly": ("not", "correctly"),
        "unavailable": ("not", "available"),
        "unsafe": ("not", "safe"),
        "illegal": ("not", "legal"),
        "invalid": ("not", "valid"),
        "unpaid": ("not", "paid"),
        "unhealthy": ("not", "healthy"),
        "gonna": ("going", "to"),
        "wanna": ("want", "to"),
    }
)
"""Short forms and what they stand for, also as typed without the apostrophe; and words that say `not` inside."""

_CARDINALS: Final = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty
"""

NUMBER_WORDS: Final[Mapping[str, int]] = MappingProxyType(
    {word: value for value, word in enumerate(_CARDINALS.split())}
    | {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
    | {"dozen": 12, "twice": 2, "thrice": 3}
)

_ORDINALS: Final = """
    first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth
    fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
"""

ORDINAL_WORDS: Final[Mapping[str, int]] = MappingProxyType(
    {word: value for value, word in enumerate(_ORDINALS.split(), start=1)} | {"thirtieth": 30}
)

SCALE_WORDS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "hundred": 10**2,
        "thousand": 10**3,
        "k": 10**3,
        "lakh": 10**5,
        "lakhs": 10**5,
        "million": 10**6,
        "millions": 10**6,
        "crore": 10**7,
        "crores": 10**7,
        "billion": 10**9,
        "billions": 10**9,
        "trillion": 10**12,
    }
)
