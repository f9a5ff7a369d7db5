"""Deterministic vetoes on serving one question's answer for another.

`parse` takes a text apart once; each guard compares two parsed texts. Modules: `_base` (the port and its values);
`_scan`, `_numerals`, `_parse` (text to `Parsed`); `_neutral` (guards for any language); `_spelling` (the
same, against what an uncased embedder cannot see) with `_code` (code inside a question); `_english` and `_scope`
(guards with English lists) with `_clauses` (what little words say); `_language` (is this English?); `_lexicon`,
`_classes`, `_opposites` (the lists).
"""

from __future__ import annotations

from typing import Final

from aicache._guards._base import Conflict, Guard, Parsed, Quantity
from aicache._guards._english import AntonymGuard, ClassGuard, DirectionGuard, NegationGuard, PrefixGuard
from aicache._guards._neutral import (
    CurrencyGuard,
    IdentifierGuard,
    NameGuard,
    NumberGuard,
    OperatorGuard,
    SwapGuard,
)
from aicache._guards._parse import Parser, collapsed, parse
from aicache._guards._scope import MoodGuard, RoleGuard, ScopeGuard
from aicache._guards._spelling import AccentGuard, CaseGuard

__all__ = [
    "DEFAULT_GUARDS",
    "ENGLISH_GUARDS",
    "NEUTRAL_GUARDS",
    "AccentGuard",
    "AntonymGuard",
    "CaseGuard",
    "ClassGuard",
    "Conflict",
    "CurrencyGuard",
    "DirectionGuard",
    "Guard",
    "IdentifierGuard",
    "MoodGuard",
    "NameGuard",
    "NegationGuard",
    "NumberGuard",
    "OperatorGuard",
    "Parsed",
    "Parser",
    "PrefixGuard",
    "Quantity",
    "RoleGuard",
    "ScopeGuard",
    "SwapGuard",
    "collapsed",
    "parse",
]

NEUTRAL_GUARDS: Final[tuple[Guard, ...]] = (
    NumberGuard(),
    IdentifierGuard(),
    OperatorGuard(),
    CurrencyGuard(),
    NameGuard(),
    SwapGuard(),
    CaseGuard(),
    AccentGuard(),
)
"""Guards for any language."""

ENGLISH_GUARDS: Final[tuple[Guard, ...]] = (
    NegationGuard(),
    AntonymGuard(),
    ClassGuard(),
    DirectionGuard(),
    PrefixGuard(),
    ScopeGuard(),
    MoodGuard(),
    RoleGuard(),
)
"""Guards with English word lists; silent unless both texts look English."""

DEFAULT_GUARDS: Final[tuple[Guard, ...]] = (*NEUTRAL_GUARDS, *ENGLISH_GUARDS)
"""Every guard, cheapest and most telling first: the first conflict decides."""
