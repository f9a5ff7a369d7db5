"""A bar that says how far it is, on stderr where a person looks at it."""

from __future__ import annotations

import sys
from threading import Lock
from types import TracebackType
from typing import IO, Any, Self

__all__ = ["Progress"]


class Progress:
    """A bar of tqdm where that is installed, else a plain line; nothing where stderr is no terminal."""

    def __init__(self, name: str, total: int, stream: IO[str] | None = None) -> None:
        self._name = name
        self._total = max(1, total)
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()
        self._done = 0
        self._percent = -1
        self._bar = _tqdm(name, total, self._stream) if self._shown else None
        self._lock = Lock()  # Processes that finish are heard of in threads.

    def tick(self, count: int) -> None:
        """So many more are done."""
        with self._lock:
            self._done += count
            if self._bar is not None:
                self._bar.update(count)
            elif self._shown and (percent := 100 * self._done // self._total) != self._percent:
                self._percent = percent
                self._stream.write(f"\r{self._name}: {percent} %")
                self._stream.flush()

    def clear(self) -> None:
        """Make room for a line of text; the next tick shows the bar again."""
        with self._lock:
            if self._bar is not None:
                self._bar.clear()
            elif self._shown:
                self._percent = -1
                self._stream.write(f"\r{' ' * (len(self._name) + 7)}\r")
                self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        else:
            self.clear()


def _tqdm(name: str, total: int, stream: IO[str]) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(desc=name, total=total, file=stream, leave=False)
