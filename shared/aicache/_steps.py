"""The steps of a plan: each names one act of I/O and the type of its result.

A plan is a generator that yields steps and receives their results; a driver carries them out. `Step.__iter__`
yields the step itself and returns what the driver sends back, so a plan reads

    entry = yield from Fetch(key)

and the type checker knows `entry`. The union `AnyStep` is closed: a driver that forgets a step does not
type-check.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar, cast

from aicache._model import CacheKey, Candidate, Entry, Listed, MissReason, Opinion, Search, Selection, Space, Vector

__all__ = [
    "AnyStep",
    "Block",
    "CheckEpoch",
    "Clear",
    "Embed",
    "Embedded",
    "Fetch",
    "Forget",
    "Mark",
    "MemoryStep",
    "Nearest",
    "Plan",
    "Promote",
    "ReadAll",
    "Recall",
    "Remove",
    "Similar",
    "Step",
    "StepFailed",
    "StoreStep",
    "Sweep",
    "Together",
    "Touch",
    "Verify",
    "Write",
    "WriteMany",
]

R = TypeVar("R")


class StepFailed(Exception):  # noqa: N818 - reads as what it is where a plan catches it
    """A step could not be carried out; the driver throws it into the plan at that step.

    A plan that can go on without the step catches it; else it ends the plan and becomes the outcome's reason.
    """

    def __init__(self, reason: MissReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Step(Generic[R]):
    """One act of I/O, with a result of type R."""

    __slots__ = ()

    def __iter__(self) -> Generator[AnyStep, Any, R]:
        return cast("R", (yield cast("AnyStep", self)))


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vector of a text and the space it lives in."""

    space: Space
    vector: Vector


@dataclass(frozen=True, slots=True)
class CheckEpoch(Step[None]):
    """Ask the store whether another process removed or replaced entries; if so, empty L1."""


@dataclass(frozen=True, slots=True)
class Recall(Step[Entry | None]):
    """The entry from L1. Memory only."""

    key: CacheKey


@dataclass(frozen=True, slots=True)
class Mark(Step[object]):
    """A token of L1's present state, for a later `Promote`. Memory only."""


@dataclass(frozen=True, slots=True)
class Promote(Step[None]):
    """Put the entry into L1, unless entries were removed there since the mark. Memory only."""

    entry: Entry
    since: object | None = None
    """The mark from before the entry was read; None for an answer that is newer than any removal."""


@dataclass(frozen=True, slots=True)
class Forget(Step[None]):
    """Remove an entry, or all of a selection, from L1. Memory only."""

    what: CacheKey | Selection


@dataclass(frozen=True, slots=True)
class Fetch(Step[Entry | None]):
    """The entry of exactly this key from the store."""

    key: CacheKey


@dataclass(frozen=True, slots=True)
class Embed(Step[Embedded]):
    """The vector of a text, from the memo or the embedder."""

    text: str


@dataclass(frozen=True, slots=True)
class Verify(Step[Opinion]):
    """Whether the answer to the stored question answers the asked one, from the memo or the verifier."""

    asked: str = field(repr=False)
    stored: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Nearest(Step[Sequence[Candidate]]):
    """The k nearest entries of a partition, nearest first."""

    search: Search


@dataclass(frozen=True, slots=True)
class Together(Step[Sequence[Any]]):
    """Several reads at once: in one round trip, where the store can. What a read failed with stands in its place."""

    reads: tuple[Fetch | Nearest, ...]


@dataclass(frozen=True, slots=True)
class Write(Step[None]):
    """Write the entry to the store; the driver keeps one that could not be written and writes it later."""

    entry: Entry
    wants_vector: bool = False
    """The entry has none only because it could not be made: it is made when the entry is written later."""


@dataclass(frozen=True, slots=True)
class WriteMany(Step[None]):
    """Write the entries to the store, in one round trip where it can. They leave L1; what fails is not kept for later.

    For what can be made again: it may fail with part of them written, and a removal of one that is just being written
    may come before it.
    """

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class ReadAll(Step[Sequence[Entry]]):
    """Every readable entry of a selection in the store, in no order, expired ones too. For people, not for lookups."""

    selection: Selection


@dataclass(frozen=True, slots=True)
class Touch(Step[None]):
    """Set when an entry expires, in the store."""

    key: CacheKey
    expires: float | None


@dataclass(frozen=True, slots=True)
class Remove(Step[int]):
    """Remove entries from L1 and the store, or only count those in the store."""

    keys: tuple[CacheKey, ...]
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Clear(Step[int]):
    """Remove a selection from L1 and the store, or only count what the store has of it."""

    selection: Selection
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Similar(Step[Sequence[Listed]]):
    """The store's entries of a selection that are near a vector, whatever their partition."""

    selection: Selection
    space: Space
    vector: Vector
    min_score: float


@dataclass(frozen=True, slots=True)
class Block(Step[None]):
    """Never match this pair by meaning again."""

    asker: CacheKey
    entry: CacheKey


@dataclass(frozen=True, slots=True)
class Sweep(Step[int]):
    """Remove some expired entries from the store."""

    now: float
    limit: int


MemoryStep: TypeAlias = Recall | Mark | Promote | Forget
StoreStep: TypeAlias = (
    CheckEpoch
    | Fetch
    | Nearest
    | Together
    | Write
    | WriteMany
    | ReadAll
    | Touch
    | Remove
    | Clear
    | Similar
    | Block
    | Sweep
)
AnyStep: TypeAlias = MemoryStep | Embed | Verify | StoreStep

Plan: TypeAlias = Generator[AnyStep, Any, R]
"""A computation that yields steps and returns R."""
