"""Comparators: do two answers say the same? A cache that learns asks one; what it says is what "wrong" means.

Modules: `words`, `structural`, `facts` (with `_answer_guards`), `meaning`, `judge` (with `_models`): one comparator
each; `combined` (several of them, and what an option names); `_texts` (an answer without its layout).
"""

from __future__ import annotations

from aicache._learned import Comparator, Equal, Reading
from aicache.comparators.combined import ComparatorLike, InOrder, default_comparator, to_comparator
from aicache.comparators.facts import SENTENCE_GUARDS, WHOLE_GUARDS, Facts
from aicache.comparators.judge import Judge
from aicache.comparators.meaning import DEFAULT_BAR, Meaning
from aicache.comparators.structural import Structural
from aicache.comparators.words import SameWords, reading

__all__ = [
    "DEFAULT_BAR",
    "SENTENCE_GUARDS",
    "WHOLE_GUARDS",
    "Comparator",
    "ComparatorLike",
    "Equal",
    "Facts",
    "InOrder",
    "Judge",
    "Meaning",
    "Reading",
    "SameWords",
    "Structural",
    "default_comparator",
    "reading",
    "to_comparator",
]
