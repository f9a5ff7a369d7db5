"""From the options about learning to a matcher, and to what learns with it."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

from aicache._errand import Background
from aicache._errors import ConfigurationError
from aicache._guards import DEFAULT_GUARDS, Guard
from aicache._learned import Floor, Reading, Target
from aicache._learning import LearnedMatcher
from aicache._match import StaticMatcher
from aicache._model import Answer
from aicache._plans import Matcher
from aicache._policy import CachePolicy, is_number
from aicache._study import Studying
from aicache.embedders.base import Embedder
from aicache.stores.base import LessonStore, Store

if TYPE_CHECKING:
    from aicache.calibration import Calibration

__all__ = ["LearningChoice", "digest_only"]

_log: Final = logging.getLogger("aicache")

_ONLY_WITH_RATE: Final = MappingProxyType({"per": "requests", "certified": False})


def digest_only(answer: Answer) -> Reading:
    """An answer of which only the digest is known."""
    return Reading(answer.digest)


@dataclass(frozen=True, slots=True)
class LearningChoice:
    """What the user chose about learning, checked."""

    target: Target | None
    shadow: bool
    guards: tuple[Guard, ...]
    comparator: object
    calibration: Calibration | None
    coin: Callable[[], float] | None
    namespace: str

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """From flat options.

        Raises:
            ConfigurationError: one is wrong, or would have no effect.
        """
        rate, shadow = given.get("max_error_rate"), given.get("shadow", False)
        if not isinstance(shadow, bool):
            raise ConfigurationError("shadow", f"give True or False; got {shadow!r}")
        for name, plain in _ONLY_WITH_RATE.items():
            if rate is None and given.get(name, plain) != plain:
                raise ConfigurationError(name, "it belongs to `max_error_rate`: give that, too")
        if rate is None and not shadow:
            for name in ("comparator", "calibration"):
                if given.get(name) is not None:
                    raise ConfigurationError(name, "nothing is compared without `max_error_rate` or `shadow`")
        coin = given.get("coin")
        if coin is not None and not callable(coin):
            raise ConfigurationError("coin", f"give a callable; got {type(coin).__name__}")
        calibration = _read_calibration(given.get("calibration"))
        return cls(
            None if rate is None else _target(given, rate, calibration),
            shadow,
            _read_guards(given.get("guards", DEFAULT_GUARDS)),
            given.get("comparator"),
            calibration,
            coin,
            given.get("namespace", ""),
        )

    def make(
        self,
        store: Store,
        embedder: Embedder | None,
        policy: CachePolicy,
        read: Callable[[Answer], Reading],
        background: Background,
    ) -> tuple[Matcher, Studying | None]:
        """The matcher, and what learns if anything does."""
        static = StaticMatcher(threshold=policy.threshold, margin=policy.margin, guards=self.guards)
        if self.target is None and not self.shadow:
            return static, None
        from aicache.comparators import to_comparator

        why = self._why_not(store, embedder, policy)
        bar = self._bar(embedder)
        comparator = to_comparator(self.comparator, embedder, bar=bar)
        studying = Studying(
            comparator,
            read,
            shadow=self.shadow,
            static=why if self.target is not None else None,
            background=background,
            owned=comparator is not self.comparator,
        )
        if self.target is None or why is not None or not isinstance(store, LessonStore):
            return static, studying
        coin = self.coin or random.SystemRandom().random
        # What the labels of one are, those of another are not.
        basis = f"{policy.candidates} {_name_of(self.comparator)} {bar}"
        learned = LearnedMatcher(self.target, self.guards, store, namespace=self.namespace, coin=coin, basis=basis)
        return learned, studying

    def _why_not(self, store: Store, embedder: Embedder | None, policy: CachePolicy) -> str | None:
        if embedder is None or not policy.semantic:
            return "nothing is matched by meaning: there is no embedder, or semantic=False"
        if not isinstance(store, LessonStore):
            return f"the store {store.name!r} keeps no lessons"
        return None

    def _bar(self, embedder: Embedder | None) -> float | None:
        calibration = self.calibration
        if calibration is None or embedder is None or calibration.bar is None:
            return None
        if calibration.embedder != embedder.fingerprint:
            _log.warning(
                "calibration was made with another embedder: its bar is not used; run `aicache calibrate` again"
            )
            return None
        return calibration.bar


def _name_of(comparator: object) -> str:
    """The same in every process: the function's own name, or that of the class."""
    return str(getattr(comparator, "__qualname__", None) or type(comparator).__qualname__)


def _target(given: Mapping[str, Any], rate: object, calibration: Calibration | None) -> Target:
    if not is_number(rate):
        raise ConfigurationError("max_error_rate", f"give a share in (0, 0.5]; got {rate!r}")
    per, certified = given.get("per", "requests"), given.get("certified", False)
    if not isinstance(per, str):
        raise ConfigurationError("per", f"give 'requests' or 'hits'; got {per!r}")
    if not isinstance(certified, bool):
        raise ConfigurationError("certified", f"give True or False; got {certified!r}")
    floor = Floor() if calibration is None else calibration.floor
    return Target(rate, per, certified, floor)  # type: ignore[arg-type]  # `Target` checks what it is


def _read_guards(given: object) -> tuple[Guard, ...]:
    guards = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    for guard in guards:
        if isinstance(guard, type) or not callable(getattr(guard, "conflict", None)):
            kind = guard.__qualname__ if isinstance(guard, type) else type(guard).__name__
            raise ConfigurationError("guards", f"give a sequence of guards, [] for none; got {kind}")
    return guards


def _read_calibration(given: object) -> Calibration | None:
    if given is None:
        return None
    from aicache.calibration import Calibration

    if isinstance(given, Calibration):
        return given
    if isinstance(given, str | PathLike):
        return Calibration.load(given)
    raise ConfigurationError("calibration", f"give a file or a Calibration; got {type(given).__name__}")
