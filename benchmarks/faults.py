"""(f) Every fault of the matrix: what an application sees while its Redis is stopped, full, busy, gone, cut off, moved.

    python benchmarks/faults.py [--only SIGSTOP,OOM] [--write docs/faults.md]

Each fault happens to real servers (`.ci/get-redis` finds or fetches the program), once for each way of using a cache:
sync and async, lookups and updates, and lookups that memory answers. Prints a Markdown table, and ends with 1 if a rule
is broken. It takes about six minutes. `--write` puts the table into the page, between its two marks.

A way that breaks a rule of time is tried again, twice at most: on a shared machine any call may be interrupted. No
other rule gets a second chance.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import logging
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "integration"))

import redis_servers
from fault_list import FAULTS, Fault
from fault_matrix import ALL_CELLS, Stage, breaches, run_cell
from fault_session import Cell, Terms

TERMS = Terms()
TRIES = 3
BEGIN, END = "<!-- what `python benchmarks/faults.py --write` puts here -->", "<!-- end -->"
HEAD = (
    "fault",
    "lookups served",
    "longest lookup",
    "updates written",
    "longest update",
    "while open",
    "hit again after",
    "written again after",
    "written later",
    "L1 served",
)


@contextlib.contextmanager
def open_stage() -> Iterator[tuple[Stage, str]]:
    """The stage, and the version of its server."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def server_of(kind: str) -> Any:
            return stack.enter_context(getattr(redis_servers, kind)())

        stage = stack.enter_context(Stage(server_of))
        yield stage, server_of("standalone").info("server")["redis_version"]


def try_fault(fault: Fault, stage: Stage) -> tuple[list[Cell], list[str]]:
    """The cells of a row, and the rules they break."""
    cells, broken = [], []
    for mode, operation in ALL_CELLS:
        # L1 needs less time to be seen at work, and nothing is written later.
        terms = replace(TERMS, lasts=0.5) if operation == "memory" else TERMS
        for _ in range(TRIES):
            cell = run_cell(fault, stage, mode, operation, terms)
            said = breaches(cell, terms)
            if not said or breaches(cell, replace(terms, timed=False, grace=60.0)):
                break
        cells.append(cell)
        broken += [f"{fault.name}, {mode} {operation}: {text}" for text in said]
    return cells, broken


# ------------------------------------------------------------------------------------------------ the table


def row_of(cells: Sequence[Cell]) -> tuple[str, ...]:
    """One line of the table: what sync and async saw, in this order."""
    lookups, updates, memory = ([cell for cell in cells if cell.operation == one] for one in OPERATIONS)
    return (
        cells[0].fault.name,
        _share(lookups),
        _pair(f"{cell.longest * 1000:.0f}" for cell in lookups) + " ms",
        _share(updates),
        _pair(f"{cell.longest * 1000:.0f}" for cell in updates) + " ms",
        _open(cells),
        _pair(_seconds(cell.resumed) for cell in lookups) + " s",
        _pair(_seconds(cell.resumed) for cell in updates) + " s",
        _pair(str(cell.replayed) for cell in updates),
        _share(memory),
    )


OPERATIONS = ("lookup", "update", "memory")


def _pair(texts: Any) -> str:
    first, second = texts
    return f"{first} / {second}"


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.2f}"


def _share(cells: Sequence[Cell]) -> str:
    return _pair(f"{100 * cell.served // max(1, cell.asked)}" for cell in cells) + " %"


def _open(cells: Sequence[Cell]) -> str:
    refused = [cell for cell in cells if cell.refused]
    if not refused:
        return "-"
    median, work = max(cell.refused_median for cell in refused), max(cell.refused_work for cell in refused)
    return f"{median * 1000:.2f} / {work * 1000:.2f} ms"


def table(rows: Sequence[Sequence[str]]) -> str:
    """The rows as Markdown."""
    lines = [HEAD, ("---",) * len(HEAD), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary(cells: Sequence[Cell], version: str) -> str:
    """What the table is about, and what it sums up to."""
    calls = sum(cell.calls for cell in cells)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return (
        f"Redis {version}; {machine}, shared with others. {len(cells)} cells, {calls:,} calls: "
        f"{sum(len(cell.exceptions) for cell in cells)} exceptions, {sum(cell.wrong for cell in cells)} wrong answers, "
        f"{sum(cell.missing for cell in cells)} answers missing afterwards, "
        f"{sum(cell.work_while_open for cell in cells)} calls of a store or an embedder while a breaker was open."
    )


def put_into(page: Path, text: str) -> None:
    """Replace what stands between the two marks of the page."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{page} has no two lines to put the table between: {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="faults whose names hold one of these words, with commas")
    parser.add_argument("--write", type=Path, help="the page to put the table into")
    arguments = parser.parse_args()
    logging.getLogger("aicache").addHandler(logging.NullHandler())  # What it says here is what happens on purpose.
    chosen = [fault for fault in FAULTS if any(word in fault.name for word in arguments.only.split(","))]
    # A pause of the garbage collector is longer than an open breaker costs, and not the cache's.
    gc.disable()
    cells: list[Cell] = []
    broken: list[str] = []
    rows = []
    with open_stage() as (stage, version):
        for fault in chosen:
            seen, said = try_fault(fault, stage)
            cells += seen
            broken += said
            rows.append(row_of(seen))
            print("\n".join([table(rows[-1:]).splitlines()[-1], *said]), file=sys.stderr, flush=True)
    text = f"{summary(cells, version)}\n\n{table(rows)}"
    print(text)
    print("\n".join(["", *(f"BROKEN: {each}" for each in broken)]) if broken else "\nEvery rule was kept.")
    if arguments.write:
        put_into(arguments.write, text)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
