"""Results of several runs as lines of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aicache._evaluation._run import START, Result

__all__ = ["HEADING", "line"]

HEADING = (
    f"{'':<34}  hit rate  wrong/req  (worst)  wrong/hit  running max  half 2: hit  wrong  (worst)"
    f"  first {START}: hit  wrong  audits  alarms  us/decision (p99)  ms/refit (most)"
)


def line(name: str, results: Sequence[Result]) -> str:
    """Means over the runs; "worst" and "running max" are of the worst run."""

    def mean(of: Callable[[Result], float]) -> float:
        return sum(map(of, results)) / len(results)

    def worst(of: Callable[[Result], float]) -> float:
        return max(map(of, results))

    half = len(results[0].outcomes) // 2
    text = (
        f"{name:<34}  {mean(lambda r: r.hit_rate()):8.3f}  {mean(lambda r: r.wrong()):9.4f}"
        f" {worst(lambda r: r.wrong()):8.4f}  {mean(lambda r: r.wrong_per_hit()):9.4f}"
        f"  {worst(lambda r: r.worst_running()):11.4f}  {mean(lambda r: r.hit_rate(half)):11.3f}"
        f" {mean(lambda r: r.wrong(half)):6.4f} {worst(lambda r: r.wrong(half)):8.4f}"
        f"  {mean(lambda r: r.hit_rate(0, START)):15.3f} {mean(lambda r: r.wrong(0, START)):6.4f}"
    )
    if results[0].timing.refits:
        text += (
            f"  {mean(lambda r: r.audits):6.0f}  {mean(lambda r: r.alarms):6.1f}"
            f"  {mean(lambda r: r.timing.decision):11.0f} {mean(lambda r: r.timing.decision_p99):5.0f}"
            f"  {mean(lambda r: r.timing.refit):8.1f} {worst(lambda r: r.timing.refit_most):6.1f}"
        )
    return text
