"""Results of several replays as lines of a table, and as numbers with names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from aicache._evaluation._run import SETTLED, START, Result
from aicache._evaluation._settings import Setting

__all__ = ["COLUMNS", "LEGEND", "Row", "fitting", "heading", "line"]

LEGEND = (
    "Mean over the seeds; in brackets the worst seed. `running`: the largest share of wrong answers among all\n"
    f"requests so far, from request {SETTLED:,} on, worst seed. `alarms`: how often it was noticed that answers\n"
    "changed. `us`: microseconds from the end of the search to the end of `lookup`, embedding and search not counted:\n"
    "median and 99th percentile."
)


@dataclass(frozen=True, slots=True)
class Row:
    """A setting, and what it gave with each seed."""

    setting: Setting
    results: Sequence[Result]

    def mean(self, of: Callable[[Result], float]) -> float:
        """Over the seeds."""
        return sum(map(of, self.results)) / len(self.results)

    def most(self, of: Callable[[Result], float]) -> float:
        """Of the seeds."""
        return max(map(of, self.results))

    def least(self, of: Callable[[Result], float]) -> float:
        """Of the seeds."""
        return min(map(of, self.results))

    def figures(self) -> dict[str, Any]:
        """All of it as numbers with names."""
        return {
            "kind": self.setting.kind,
            "setting": self.setting.name,
            **asdict(self.setting),
            "hit_rate": self.mean(Result.hit_rate),
            "wrong_per_request": self.mean(Result.wrong),
            "wrong_per_hit": self.mean(Result.wrong_per_hit),
            "seeds": [result.figures() for result in self.results],
        }


@dataclass(frozen=True, slots=True)
class Column:
    """A group of figures with its heading."""

    title: str
    of: Callable[[Row], str]


def _half_hits(result: Result) -> float:
    return result.hit_rate(result.half)


def _half_wrong(result: Result) -> float:
    return result.wrong(result.half)


def _start_hits(result: Result) -> float:
    return result.hit_rate(0, START)


def _start_wrong(result: Result) -> float:
    return result.wrong(0, START)


def _median(result: Result) -> float:
    return result.decisions[0]


def _p99(result: Result) -> float:
    return result.decisions[2]


def _alarms(result: Result) -> float:
    return result.alarms


COLUMNS: tuple[Column, ...] = (
    Column("hit rate", lambda row: f"{row.mean(Result.hit_rate):.3f} ({row.least(Result.hit_rate):.3f})"),
    Column("wrong/request", lambda row: f"{row.mean(Result.wrong):.4f} ({row.most(Result.wrong):.4f})"),
    Column("wrong/hit", lambda row: f"{row.mean(Result.wrong_per_hit):.4f} ({row.most(Result.wrong_per_hit):.4f})"),
    Column("running", lambda row: f"{row.most(Result.worst_running):.4f}"),
    Column("half 2: hit", lambda row: f"{row.mean(_half_hits):.3f}"),
    Column("wrong/request", lambda row: f"{row.mean(_half_wrong):.4f} ({row.most(_half_wrong):.4f})"),
    Column(f"first {START:,}: hit", lambda row: f"{row.mean(_start_hits):.3f}"),
    Column("wrong/request", lambda row: f"{row.mean(_start_wrong):.4f} ({row.most(_start_wrong):.4f})"),
    Column("alarms", lambda row: f"{row.mean(_alarms):.1f}"),
    Column("us", lambda row: f"{row.mean(_median):.0f} {row.mean(_p99):.0f}"),
)
_NAME = 27
_WIDTHS = (13, 15, 15, 7, 11, 15, 16, 15, 6, 9)


_GAP = "  "


def fitting(width: int) -> int:
    """How many columns, from the first on, fit side by side into a terminal so wide; at least one."""
    taken, count = _NAME, 0
    for one in _WIDTHS:
        taken += len(_GAP) + one
        count += taken <= width
    return max(1, count)


def _cells(first: str, others: Sequence[str]) -> Iterator[str]:
    yield f"{first:<{_NAME}}"
    for width, text in zip(_WIDTHS, others, strict=False):
        yield f"{text:>{width}}"


def heading(count: int = len(COLUMNS)) -> str:
    """The titles of so many columns."""
    return _GAP.join(_cells("", [column.title for column in COLUMNS[:count]]))


def line(row: Row, count: int = len(COLUMNS)) -> str:
    """A row of the table."""
    return _GAP.join(_cells(row.setting.name, [column.of(row) for column in COLUMNS[:count]]))
