"""Many replays: one after the other, or in several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from aicache._evaluation._embedded import Embedded
from aicache._evaluation._run import Result, replay
from aicache._evaluation._settings import Setting
from aicache._evaluation._streams import Scenario, Stream, read

__all__ = ["Replays", "Task", "replays"]


@dataclass(frozen=True, slots=True)
class Task:
    """One setting under one scenario."""

    setting: Setting
    scenario: Scenario


class Replays(Protocol):
    """Carries out tasks; the results come in the same order. `tick` is told how many more requests are done."""

    def __call__(self, tasks: Sequence[Task], tick: Callable[[int], None], /) -> Iterator[Result]:
        """One result a task."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a process finds the stream and its vectors: to hand them over with each task would take longer."""

    file: Path
    limit: int | None
    vectors: Path


@contextmanager
def replays(file: Path, limit: int | None, stream: Stream, embedded: Embedded, jobs: int) -> Iterator[Replays]:
    """Replays of a stream in so many processes; with one job, in this one."""
    if jobs == 1:

        def here(tasks: Sequence[Task], tick: Callable[[int], None]) -> Iterator[Result]:
            return (replay(stream, embedded, task.setting, task.scenario, tick) for task in tasks)

        yield here
        return
    with TemporaryDirectory() as folder:
        source = _Source(file, limit, Path(folder) / "vectors")
        embedded.save(source.vectors, stream)
        # Not forked: an embedder's threads would be copied in the middle of something.
        with ProcessPoolExecutor(jobs, get_context("spawn"), _use_one_thread) as pool:

            def there(tasks: Sequence[Task], tick: Callable[[int], None]) -> Iterator[Result]:
                futures = [pool.submit(_replay, source, task) for task in tasks]
                for future in futures:
                    future.add_done_callback(lambda done: tick(_requests(done)))
                return (future.result() for future in futures)

            try:
                yield there
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _requests(done: Future[Result]) -> int:
    return 0 if done.cancelled() or done.exception() is not None else len(done.result().outcomes)


def _use_one_thread() -> None:
    """The matrices are small, and the other cores are busy with the other replays. Before numpy is imported."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def _replay(source: _Source, task: Task) -> Result:
    return replay(*_load(source), task.setting, task.scenario)


@lru_cache(maxsize=1)
def _load(source: _Source) -> tuple[Stream, Embedded]:
    stream = read(source.file, source.limit)
    return stream, Embedded.load(source.vectors, stream)
