"""From a lookup to the update that follows it: what a miss saw waits here for the fresh answer.

A framework asks the cache and later, in a call of its own, brings the model's answer. The two are paired by the key of
the prompt. An answer that never comes leaves nothing behind: what waited too long, or is too much, is dropped.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from aicache._errors import CONTROL
from aicache._fork import in_forked_child
from aicache._learned import Comparator, Lesson, Reading
from aicache._model import Answer, CacheKey, Candidate, Entry

__all__ = ["Finding", "Trail", "Waiting", "cluster_of", "compare", "lightened"]

FEW: Final = 3
"""Other clusters whose answers are compared in the background. Each costs some ten milliseconds for answers of 1 KB,
and the farther ones seldom say the same."""
WAITING_LESSONS: Final = 2_000
WAITING_BYTES: Final = 16 * 2**20
WAITING_SECONDS: Final = 900.0
"""Longer than any model call that is still worth waiting for."""


@dataclass(slots=True)
class Trail:
    """What a lookup leaves for the one who carried it out: the lesson, if the matcher gave one."""

    lesson: Lesson | None = None


class Waiting:
    """Lessons whose fresh answer has not come yet, by key. Safe from any thread.

    Several lookups of one prompt may wait at once: each update takes the one that has waited longest. `on_dropped` is
    called, under no lock, for each lesson whose answer is not expected any more.
    """

    def __init__(self, on_dropped: Callable[[Lesson], None]) -> None:
        self._on_dropped = on_dropped
        self._lessons: OrderedDict[bytes, deque[tuple[float, Lesson]]] = OrderedDict()
        """By digest; the one that came last is last."""
        self._count = 0
        self._bytes = 0
        self._lock = threading.Lock()
        in_forked_child(self._begin_anew)

    def _begin_anew(self) -> None:
        """In a forked child: the answers come to the parent."""
        self._lock = threading.Lock()
        self._lessons.clear()
        self._count = self._bytes = 0

    def put(self, key: CacheKey, lesson: Lesson, now: float) -> None:
        """Wait for the answer. `now` is monotonic."""
        dropped: list[Lesson] = []
        with self._lock:
            self._lessons.setdefault(key.digest, deque()).append((now, lesson))
            self._lessons.move_to_end(key.digest)
            self._count += 1
            self._bytes += lesson.weight
            while self._is_too_much(now):
                dropped.append(self._pop(next(iter(self._lessons))))
        for unexpected in dropped:
            self._on_dropped(unexpected)

    def take(self, key: CacheKey) -> Lesson | None:
        """The answer has come."""
        with self._lock:
            return self._pop(key.digest) if key.digest in self._lessons else None

    def drop(self, key: CacheKey) -> None:
        """What came was no answer that can be kept."""
        lesson = self.take(key)
        if lesson is not None:
            self._on_dropped(lesson)

    def _is_too_much(self, now: float) -> bool:
        if not self._lessons:
            return False
        oldest = next(iter(self._lessons.values()))[0][0]
        return self._count > WAITING_LESSONS or self._bytes > WAITING_BYTES or oldest < now - WAITING_SECONDS

    def _pop(self, digest: bytes) -> Lesson:
        queue = self._lessons[digest]
        _, lesson = queue.popleft()
        if not queue:
            del self._lessons[digest]
        self._count -= 1
        self._bytes -= lesson.weight
        return lesson


def lightened(lesson: Lesson) -> Lesson:
    """The lesson without what no comparison asks for: vectors, and all entries of a cluster but the nearest."""
    nearest: dict[bytes, Candidate] = {}
    for candidate in lesson.near:
        nearest.setdefault(cluster_of(candidate.entry), candidate)
    near = (Candidate(replace(one.entry, vector=None), one.score) for one in nearest.values())
    return replace(lesson, near=tuple(near))


# --------------------------------------------------------------------------------------------- comparing


@dataclass(frozen=True, slots=True)
class Finding:
    """What a fresh answer tells of the entries near it."""

    ok: bool | None
    """The nearest entry's answer says the same; None: the comparator cannot tell."""
    cluster: bytes | None = None
    """Where the fresh answer belongs; None: it stands alone."""
    joined: Entry | None = None
    """The entry it belongs to, if that one stood alone: it becomes one of the cluster."""


def cluster_of(entry: Entry) -> bytes:
    """The entry's cluster, 16 bytes; one that stands alone has one of its own, and another with another answer."""
    return entry.cluster or (entry.key.digest[:8] + entry.answer.digest[:8]).ljust(16, b"\0")


def compare(
    answer: Answer, near: Sequence[Candidate], comparator: Comparator, read: Callable[[Answer], Reading]
) -> Finding:
    """Compare a fresh answer with that of the nearest entry, and if they differ with one of each other cluster near.

    One that is not immediate is asked about the nearest few only, one that is dear (a model) about the nearest entry.
    """
    asked: list[Reading] = []

    def same(other: Answer) -> bool | None:
        try:
            if not asked:
                asked.append(read(answer))  # Once, for it may be long.
            return comparator.same(asked[0], read(other))
        except CONTROL:
            raise
        except BaseException:  # noqa: BLE001 - somebody else's code, or a damaged answer; what it cannot tell teaches nothing
            return None

    ok = same(near[0].entry.answer) if near else None
    if ok:
        return _belongs(near[0].entry, ok=True)
    seen = {cluster_of(candidate.entry) for candidate in near[:1]}
    more = 0 if getattr(comparator, "dear", False) else len(near) if comparator.immediate else FEW
    for candidate in near[1:]:
        entry = candidate.entry
        if cluster_of(entry) in seen:
            continue
        seen.add(cluster_of(entry))
        more -= 1
        if entry.answer.digest == answer.digest or (more >= 0 and same(entry.answer)):
            return _belongs(entry, ok=ok)
    return Finding(ok)


def _belongs(entry: Entry, *, ok: bool | None) -> Finding:
    return Finding(ok, cluster_of(entry), entry if entry.cluster is None else None)
