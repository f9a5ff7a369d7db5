"""Guards on their own: compare two questions without a cache, pick guards, or write one.

A guard vetoes serving the answer of one question for another. Pass a choice to a cache as `guards=[...]`.
"""

from __future__ import annotations

from collections.abc import Iterable

from aicache._guards import (
    DEFAULT_GUARDS,
    ENGLISH_GUARDS,
    NEUTRAL_GUARDS,
    AccentGuard,
    AntonymGuard,
    CaseGuard,
    ClassGuard,
    Conflict,
    CurrencyGuard,
    DirectionGuard,
    Guard,
    IdentifierGuard,
    MoodGuard,
    NameGuard,
    NegationGuard,
    NumberGuard,
    OperatorGuard,
    Parsed,
    PrefixGuard,
    RoleGuard,
    ScopeGuard,
    SwapGuard,
    parse,
)

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
    "PrefixGuard",
    "RoleGuard",
    "ScopeGuard",
    "SwapGuard",
    "first_conflict",
    "parse",
]


def first_conflict(a: str, b: str, guards: Iterable[Guard] = DEFAULT_GUARDS) -> Conflict | None:
    """The first difference between two questions that a guard says can change the answer, or None.

    The result quotes words of the texts: show it, never log it. White space and a cosine are not looked at here;
    a cache does that besides (`layout` and `unseen` in docs/correctness.md).
    """
    left, right = parse(a), parse(b)
    return next((found for guard in guards if (found := guard.conflict(left, right)) is not None), None)
