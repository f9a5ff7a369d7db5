"""What a load on a cache has shown, phase by phase, and how it is printed."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from aicache._resilience import LOOKUP_SECONDS, UPDATE_SECONDS

__all__ = ["ASK", "KEEP", "LIMITS", "Call", "LateCall", "LoadResult", "PhaseResult"]

ASK, KEEP = "lookup", "update"
LIMITS: Final = {ASK: LOOKUP_SECONDS + 0.05, KEEP: UPDATE_SECONDS + 0.05}
"""No call may take longer than its deadline and 50 ms. Embedding is not counted, but the fake embedder takes 0.1 ms."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call as its caller saw it; times in seconds."""

    phase: int
    kind: str
    half: str
    """`task` or `thread`."""
    started: float
    seconds: float
    verdict: str = ""
    """Of a lookup: `hit`, `miss` or `wrong`; `error` of either."""


@dataclass(frozen=True, slots=True)
class LateCall:
    """A call that took longer than it may."""

    phase: str
    kind: str
    half: str
    seconds: float
    lag: float
    """The most by which an idle one of the same half was late meanwhile, which is not the cache's doing."""

    def __str__(self) -> str:
        took, lag = self.seconds * 1e3, self.lag * 1e3
        return f"{self.kind} in a {self.half}, {self.phase}: {took:.0f} ms, of it lag {lag:.0f} ms"


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """What callers noticed in one phase. Times in seconds, as the caller's clock has them."""

    name: str
    seconds: float
    lookups: int
    hits: int
    from_l1: int
    wrong: int
    """Answers that belong to another question."""
    errors: int
    """Exceptions that reached a caller."""
    lookup: Sequence[float] = field(repr=False)
    """Durations, sorted."""
    update: Sequence[float] = field(repr=False)
    lag: float
    """The most by which an idle task or thread of this process was late: no call can be more punctual than that."""

    @property
    def hit_rate(self) -> float:
        """Hits per lookup."""
        return self.hits / self.lookups if self.lookups else 0.0


@dataclass(frozen=True, slots=True)
class LoadResult:
    """A load, phase by phase, and what became of the answers."""

    phases: tuple[PhaseResult, ...]
    pending: int
    """Answers that still waited in memory when all was calm again."""
    replayed: int
    lost: int
    missing: int
    """Answers that were kept and that another cache does not find afterwards. A primary that is killed takes with it
    what its replica has not got yet, so there may be some."""
    kept: int
    """Different answers that were kept."""
    misses: Counter[str]
    late: tuple[LateCall, ...]
    """Calls that took longer than they may, the process's lag not counted."""
    first_error: str

    @property
    def wrong(self) -> int:
        """Answers that belong to another question, in all phases."""
        return sum(phase.wrong for phase in self.phases)

    @property
    def errors(self) -> int:
        """Exceptions that reached a caller, in all phases."""
        return sum(phase.errors for phase in self.phases)

    def phase(self, name: str) -> PhaseResult:
        """The phase of this name."""
        return next(phase for phase in self.phases if phase.name == name)

    def table(self) -> str:
        """The phases as a Markdown table, and the rest below it."""
        lines = [
            "| phase | seconds | lookups | hit rate | wrong | errors | lookup p50 / p99 / max | update p50 / p99 / max "
            "| lag of an idle task |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {one.name} | {one.seconds:.1f} | {one.lookups:,} | {one.hit_rate:.1%} | {one.wrong} | {one.errors} "
            f"| {_times(one.lookup)} | {_times(one.update)} | {one.lag * 1e3:.0f} ms |"
            for one in self.phases
        ]
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.misses.most_common())
        lines += [
            "",
            f"{self.kept:,} different answers kept: {self.replayed} of them written later, {self.lost} lost, "
            f"{self.pending} pending; {self.missing} not found afterwards by another cache.",
            f"Misses: {reasons}.",
            f"Calls beyond their deadline and 50 ms, lag not counted: {len(self.late)}.",
            *(f"- {call}" for call in self.late[:10]),
        ]
        return "\n".join(lines)


def _times(seconds: Sequence[float]) -> str:
    if len(seconds) < 2:
        return "-"
    marks = statistics.quantiles(seconds, n=100)
    return f"{marks[49] * 1e3:.2f} / {marks[98] * 1e3:.1f} / {seconds[-1] * 1e3:.0f} ms"
