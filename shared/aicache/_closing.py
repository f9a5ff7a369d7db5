"""`with` and `async with` for what has a `close` and an `aclose`."""

from __future__ import annotations

from abc import abstractmethod
from types import TracebackType
from typing import Self

__all__ = ["Closing"]


class Closing:
    """Closed at the end of a block."""

    __slots__ = ()

    @abstractmethod
    def close(self) -> None:
        """Release what it holds; a second call does nothing."""

    @abstractmethod
    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
