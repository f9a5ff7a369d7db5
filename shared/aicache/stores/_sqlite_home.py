"""What one program has open of an embedded store, and how a fork leaves it."""

from __future__ import annotations

import os
import threading
from typing import Final

from aicache._fork import around_fork
from aicache.stores._sqlite_file import Identity
from aicache.stores._sqlite_session import Session

__all__ = ["Home", "Homes"]

_FORK_PATIENCE: Final = 1.0
"""Seconds a fork waits for reads under way to end; they take microseconds."""


class Home:
    """The session of one program, if there is one."""

    __slots__ = ("identity", "opening", "session", "sessions", "torn")

    def __init__(self, *, torn: bool) -> None:
        self.opening = threading.Lock()
        """Held while a session is opened, and during a fork."""
        self.session: Session | None = None
        self.identity: Identity | None = None
        """The file of the last session; None when none has been opened, or its file is known to be gone."""
        self.sessions = 0
        """Sessions opened so far."""
        self.torn = torn
        """True in a child whose parent had the file open: SQLite's notes on its locks are wrong here."""

    def retire(self, session: Session) -> None:
        """Close the session and let the next operation begin a new one."""
        if self.session is session:
            self.session = None
        session.close()


class Homes:
    """One home a program: a forked child finds none of its own and leaves its parent's alone for ever."""

    def __init__(self) -> None:
        self._homes: dict[int, Home] = {}
        self._forking: Home | None = None
        around_fork(self._before_fork, self._after_fork)

    def own(self) -> Home:
        """The home of this program."""
        pid = os.getpid()
        home = self._homes.get(pid)
        if home is None:
            torn = any(other.session is not None for other in self._homes.values())
            # `setdefault` is atomic: threads of a new child agree on one home without a lock, which they could
            # have inherited held.
            home = self._homes.setdefault(pid, Home(torn=torn))
        return home

    def close(self) -> None:
        """Close what this program has open."""
        home = self._homes.get(os.getpid())
        if home is not None and home.session is not None:
            home.retire(home.session)

    def _before_fork(self) -> None:
        """Close the session, and let none be opened until the fork is done."""
        home = self._homes.get(os.getpid())
        if home is None or not home.opening.acquire(timeout=_FORK_PATIENCE):
            return
        self._forking = home
        session = home.session
        if session is not None:
            session.close()
            # Left in place when something hangs: the child then knows that it cannot use the file.
            if session.unused(_FORK_PATIENCE):
                home.session = None

    def _after_fork(self) -> None:
        """Only in the parent."""
        home, self._forking = self._forking, None
        if home is not None:
            home.opening.release()
