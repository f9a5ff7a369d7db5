"""The quickstart's live table and its totals."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from _support_desk import Question

from aicache import Hit, Match, Outcome

__all__ = ["Row", "Table"]

_KINDS = {
    "new": "first asked",
    "repeat": "asked again",
    "variant": "case or typing errors",
    "reworded": "reworded",
    "near-miss": "near-misses",
}
_OUTCOME = 29
_OTHERS = 31 + _OUTCOME
"""Columns of all but the question, with the spaces between."""


@dataclass(frozen=True, slots=True)
class Row:
    """One question, what the cache made of it, and how long the whole chain took."""

    question: Question
    outcome: Outcome
    seconds: float
    wrong: bool
    """A hit that serves the answer to a question with another right answer."""

    @property
    def hit(self) -> bool:
        return isinstance(self.outcome, Hit)

    @property
    def tokens(self) -> tuple[int, int]:
        """Input and output tokens that were not paid for again."""
        usage = self.outcome.entry.answer.usage if isinstance(self.outcome, Hit) else None
        return (usage.input_tokens, usage.output_tokens) if usage is not None else (0, 0)


class Table:
    """Prints one line a question as it is answered, then the totals."""

    def __init__(self, prices: tuple[float, float]) -> None:
        self._prices = prices
        self._rows: list[Row] = []
        columns = shutil.get_terminal_size((110, 24)).columns
        self._width = max(96, min(130, columns)) - _OTHERS
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def head(self) -> None:
        print(f"\n{'':3} {'question':{self._width}} {'outcome':{_OUTCOME}} {'ms':>7} {'tokens':>6} {'saved':>9}")

    def add(self, row: Row) -> None:
        self._rows.append(row)
        question = _shorten(row.question.text, self._width)
        outcome = f"{_shorten(_describe(row), _OUTCOME):{_OUTCOME}}"
        colour = "31" if row.wrong else "32" if row.hit else "2"
        if self._colours:
            outcome = f"\x1b[{colour}m{outcome}\x1b[0m"
        line = f"{len(self._rows):3} {question:{self._width}} {outcome} {row.seconds * 1e3:7.1f}"
        if row.hit:
            line += f" {sum(row.tokens):6} {'$' + format(self._money([row]), '.6f'):>9}"
        print(line, flush=True)

    def totals(self) -> None:
        hits = [row for row in self._rows if row.hit]
        exact = [row for row in hits if isinstance(row.outcome, Hit) and row.outcome.match is Match.EXACT]
        semantic = [row for row in hits if row not in exact]
        misses = [row for row in self._rows if not row.hit]
        tokens_in, tokens_out = (sum(row.tokens[side] for row in hits) for side in (0, 1))
        print(
            f"\nhit rate       {_share(len(hits), len(self._rows))}: {len(exact)} exact, {len(semantic)} semantic"
            f"\nwrong hits     {sum(row.wrong for row in hits)} of {len(hits)}"
            f"\nhits by kind   {', '.join(self._hits_by_kind())}"
            f"\nexact hits     {_latency(exact)}"
            f"\nsemantic hits  {_latency(semantic)}"
            f"\nmisses         {_latency(misses)} (the model's own time is in it)"
            f"\nsaved          {tokens_in} input and {tokens_out} output tokens, ${self._money(hits):.4f} "
            f"at an assumed ${self._prices[0]:g} and ${self._prices[1]:g} per million"
        )

    def _hits_by_kind(self) -> list[str]:
        shares = []
        for kind, name in _KINDS.items():
            hits = [row.hit for row in self._rows if row.question.kind == kind]
            if hits:
                shares.append(f"{name} {sum(hits)}/{len(hits)}")
        return shares

    def _money(self, rows: Sequence[Row]) -> float:
        return sum(tokens * price / 1e6 for row in rows for tokens, price in zip(row.tokens, self._prices, strict=True))


def _describe(row: Row) -> str:
    outcome = row.outcome
    if isinstance(outcome, Hit):
        score = f" {outcome.score:.3f}" if outcome.match is Match.SEMANTIC else ""
        return f"hit {outcome.match}{score}" + (" WRONG" if row.wrong else "")
    detail, _, _ = outcome.detail.partition(",")  # "0.9103, threshold 0.97": the threshold stands above the table.
    return f"miss: {outcome.reason.replace('_', ' ')}" + (f" {detail}" if detail else "")


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})" if whole else "none asked"


def _latency(rows: Sequence[Row]) -> str:
    if not rows:
        return "none"
    times = sorted(row.seconds * 1e3 for row in rows)
    p50, p95 = (times[min(len(times) - 1, int(share * len(times)))] for share in (0.50, 0.95))
    return f"p50 {p50:.1f} ms, p95 {p95:.1f} ms"
