"""Saying what went wrong: once each in the log, always in the counters, and never with a prompt in it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from aicache._errors import CONTROL, AICacheError, StoreError, UnavailableError, UnreadableEntryError, WrongKeyError
from aicache._health import PartHealth, PartState
from aicache._model import Miss, MissReason, Outcome
from aicache._stats import Recorder
from aicache._steps import AnyStep, StepFailed
from aicache._upkeep import OnceOnly

__all__ = ["Reporter"]

_log: Final = logging.getLogger("aicache")


class Reporter:
    """Takes every fault of one cache and tells the counters, the log and the user's listener.

    Args:
        recorder: the counters.
        on_outcome: the user's listener, called after every lookup; its errors are ignored, and said once.
    """

    def __init__(self, recorder: Recorder, on_outcome: Callable[[Outcome, float], None] | None) -> None:
        self._recorder = recorder
        self._on_outcome = on_outcome
        self._told = OnceOnly()

    def looked_up(self, outcome: Outcome, seconds: float) -> None:
        """A lookup ended after so many seconds."""
        self._recorder.looked_up(outcome, seconds)
        if self._on_outcome is not None:
            try:
                self._on_outcome(outcome, seconds)
            except CONTROL:
                raise
            except BaseException as error:  # noqa: BLE001 - a listener must not cost the answer
                self.warn(f"on_outcome raised {type(error).__name__}; its errors are ignored")

    def contain(self, error: BaseException) -> Miss:
        """The reason an exception stands for. Only a fault of ours is logged here: `step_failed` logs the ports'."""
        match error:
            case StepFailed():
                return Miss(error.reason, error.detail)
            case WrongKeyError():
                return Miss(MissReason.WRONG_KEY, type(error).__name__)
            case UnreadableEntryError():
                return Miss(MissReason.UNREADABLE, type(error).__name__)
            case _:
                kind = type(error).__name__
                self.warn(f"a fault inside the cache ({kind} at {_place(error)}) was contained; the call went uncached")
                return Miss(MissReason.INTERNAL, kind)

    def step_failed(self, step: AnyStep, failed: StepFailed, error: BaseException) -> None:
        """A store, an embedder or a verifier could not carry out a step."""
        if failed.reason is MissReason.EXACT_ONLY:
            return
        name = type(step).__name__.lower()
        self._recorder.failed(name, failed.reason)
        if failed.reason is MissReason.UNAVAILABLE:
            return  # The breaker's opening has been said.
        # Texts of our own exceptions hold no prompt; a foreign one may quote it, so only its type is shown.
        what = str(error).rstrip(".") if isinstance(error, AICacheError) else type(error).__name__
        self.warn(f"{name} failed: {what}. The application goes on; calls that need it are not cached")

    def lesson_failed(self, error: BaseException) -> None:
        """Something in the background of learning failed; it goes on another time."""
        if isinstance(error, UnavailableError):
            return  # The breaker's opening has been said.
        ours = isinstance(error, StoreError)
        self._recorder.failed("learn", MissReason.STORE_FAILED if ours else MissReason.INTERNAL)
        what = (
            str(error).rstrip(".") if isinstance(error, AICacheError) else f"{type(error).__name__} at {_place(error)}"
        )
        self.warn(f"learning from answers failed: {what}. It goes on with the next one")

    def part_changed(self, part: str, health: PartHealth) -> None:
        """A breaker opened, half opened or closed."""
        with suppress(Exception):  # a log handler that raises must not cost the answer
            if health.state is PartState.OPEN:
                _log.warning("%s is left alone for a while, for its last calls failed (%s)", part, health.why)
            elif health.state is PartState.UP:
                _log.info("%s is up", part)

    def warn(self, text: str) -> None:
        """Say it in the log, the first time."""
        if self._told.first_time(text):
            with suppress(Exception):  # a log handler that raises must not cost the answer
                _log.warning("%s (said once)", text)


def _place(error: BaseException) -> str:
    """Module and line where the exception arose: enough to report the fault, nothing of the prompt."""
    trace = error.__traceback__
    if trace is None:
        return "an unknown place"
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
