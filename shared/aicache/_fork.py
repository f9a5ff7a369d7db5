"""Hooks for forks that do not keep their objects alive: what every object with a lock needs.

A forked child has one thread. A lock that another thread of the parent held at that moment is never released in the
child, and what it protects may be half-changed.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable

__all__ = ["around_fork", "in_forked_child"]


def in_forked_child(act: Callable[[], None]) -> None:
    """Call this bound method in every forked child, while its object lives."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_unless_gone(act))


def around_fork(before: Callable[[], None], after: Callable[[], None]) -> None:
    """Call these bound methods in the parent before and after every fork, while their object lives."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_unless_gone(before), after_in_parent=_unless_gone(after))


def _unless_gone(method: Callable[[], None]) -> Callable[[], None]:
    # A registration lasts as long as the program.
    weak = weakref.WeakMethod(method)

    def call() -> None:
        alive = weak()
        if alive is not None:
            alive()

    return call
