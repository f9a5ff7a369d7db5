"""The exceptions of aicache. None of them leaves `lookup` or `update` of an adapter.

Messages never contain a prompt, an answer, a credential or a tenant: they may end up in a log.
"""

from __future__ import annotations

from asyncio import CancelledError
from typing import Final

__all__ = [
    "CONTROL",
    "AICacheError",
    "ConfigurationError",
    "EmbedderError",
    "EmbedderTimeoutError",
    "MissingExtraError",
    "QueryTooLongError",
    "StoreError",
    "StoreTimeoutError",
    "UnavailableError",
    "UnknownWordsError",
    "UnreadableEntryError",
    "UnwritableEntryError",
    "VerifierError",
    "VerifierTimeoutError",
    "WrongKeyError",
]


CONTROL: Final = (KeyboardInterrupt, SystemExit, GeneratorExit, CancelledError)
"""What must pass through. Any other BaseException is a fault: extension modules written in Rust raise theirs so."""


class AICacheError(Exception):
    """The base of every exception raised by aicache."""


class ConfigurationError(AICacheError, ValueError):
    """A constructor argument is wrong; raised at construction.

    The text is one sentence that begins with the parameter's name.
    """

    def __init__(self, parameter: str, problem: str) -> None:
        super().__init__(f"{parameter}: {problem}")
        self.parameter = parameter
        self._made_of = parameter, problem

    def __reduce__(self) -> tuple[type[ConfigurationError], tuple[str, str]]:
        """For pools of processes, which send exceptions home."""
        return type(self), self._made_of


class MissingExtraError(AICacheError, ImportError):
    """A feature needs a package that is not installed; the text names the extra to install."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs a package that is not installed: pip install 'aicache[{extra}]'")
        self.extra = extra
        self._made_of = feature, extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        """For pools of processes, which send exceptions home."""
        return type(self), self._made_of


class StoreError(AICacheError):
    """A store could not carry out an operation (locked, full, unreachable, ...)."""


class UnreadableEntryError(StoreError):
    """Stored bytes are not an entry of a format this version reads."""


class WrongKeyError(UnreadableEntryError):
    """Stored bytes are encrypted with a key that is not among ours."""


class UnwritableEntryError(StoreError):
    """An entry cannot be written whatever the state of the store; trying again is of no use."""


class StoreTimeoutError(StoreError):
    """A store did not answer within the operation's deadline."""


class UnavailableError(AICacheError):
    """A part is left alone for a while, for its last calls failed; nothing was tried."""

    def __init__(self, part: str, why: str) -> None:
        super().__init__(f"{part} is left alone for a while, for its last calls failed ({why}); it is tried again soon")
        self.part = part
        self.why = why


class EmbedderError(AICacheError):
    """An embedder failed or returned something that is not a usable vector."""


class EmbedderTimeoutError(EmbedderError):
    """An embedder did not answer within its deadline, or all its threads are held by calls that did not."""


class QueryTooLongError(EmbedderError):
    """A text is longer than the embedder takes; it is matched exactly, never truncated."""


class UnknownWordsError(EmbedderError):
    """A text has words outside the model's vocabulary; texts that differ only in these would get one vector."""


class VerifierError(AICacheError):
    """A verifier failed, or returned something that is no yes or no."""


class VerifierTimeoutError(VerifierError):
    """A verifier did not answer within its deadline, or all its threads are held by calls that did not."""
