"""What a decision leaves behind, so that the fresh answer can teach something."""

from __future__ import annotations

from dataclasses import dataclass, field

from aicache._learned._learner import Ticket
from aicache._model import Candidate, Hit, Space

__all__ = ["Lesson"]


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What a lookup saw that the application's fresh answer will tell more about."""

    space: Space
    near: tuple[Candidate, ...] = field(default=(), repr=False)
    """The entries that were looked at, the one that was decided about first."""
    ticket: Ticket | None = field(default=None, repr=False)
    """What the learner wants back; None where nothing is learned."""
    accepted: bool = False
    """The matcher would serve the first."""
    unserved: Hit | None = None
    """In shadow mode: what would have been served."""

    @property
    def weight(self) -> int:
        """Bytes of the entries it keeps alive, about."""
        return 500 + sum(candidate.entry.weight for candidate in self.near)
