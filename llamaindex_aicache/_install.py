"""What an installation changes in LlamaIndex: `Settings`, and on demand the construction of models.

`Settings` is one per process, and so is what is installed in it: the last installation acts, and when it goes, the one
before acts again. Without any, all is as LlamaIndex made it.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

from llama_index.core import Settings
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.response_synthesizers import BaseSynthesizer

from aicache._errors import ConfigurationError
from llamaindex_aicache._marks import amarking, marking
from llamaindex_aicache._models_swap import ModelSwapper, Swappable, owner_of

__all__ = ["InstallScope", "Installation", "install", "uninstall"]

InstallScope: TypeAlias = Literal["settings", "all"]

_log: Final = logging.getLogger("aicache")
_MISSING: Final = object()


class Installation:
    """One `install` of a cache.

    Args:
        swapper: swaps the models that are handed out.
        scope: `settings`: those of `Settings`; `all`: also every model made from now on.
    """

    def __init__(self, swapper: ModelSwapper, scope: InstallScope) -> None:
        self.swapper = swapper
        self.scope = scope

    def cover(self, model: object) -> None:
        """Swap this model, unless the application has wrapped it by itself. Never raises."""
        if not isinstance(model, Swappable):
            return
        owner = owner_of(model)
        if owner is not None and owner.is_explicit:
            return
        try:
            self.swapper.swap(model)
        except Exception as error:  # noqa: BLE001 - an application that only reads its Settings must not fail for it
            _log.warning("a %s is not cached: %s", type(model).__qualname__, error)


class _Replaced:
    """An attribute of a foreign class, replaced."""

    def __init__(self, owner: type, name: str, make: Callable[[Any], Any]) -> None:
        self._owner = owner
        self._name = name
        self._before = owner.__dict__.get(name, _MISSING)
        self._now = make(getattr(owner, name))
        setattr(owner, name, self._now)

    def restore(self) -> None:
        """As it was; unless somebody else has replaced it meanwhile, whose replacement goes on to call ours."""
        if self._owner.__dict__.get(self._name) is not self._now:
            return
        if self._before is _MISSING:
            delattr(self._owner, self._name)
        else:
            setattr(self._owner, self._name, self._before)


class _Installed:
    """The installations of this process, in their order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stack: tuple[Installation, ...] = ()
        self._replaced: dict[InstallScope, list[_Replaced]] = {}

    def add(self, installation: Installation) -> None:
        with self._lock:
            self._stack = (*self._stack, installation)
            self._adapt()
        for model in (Settings._llm, Settings._embed_model):
            installation.cover(model)

    def remove(self, installation: Installation) -> None:
        with self._lock:
            self._stack = tuple(each for each in self._stack if each is not installation)
            self._adapt()
        installation.swapper.restore_all()

    def cover(self, model: object, *, is_new: bool) -> None:
        """Swap a model that `Settings` hands out, or one that was just made."""
        for installation in reversed(self._stack):
            if installation.scope == "all" or not is_new:
                installation.cover(model)
                return

    def _adapt(self) -> None:
        """Replace what the installations need, and restore what none needs any more."""
        wanted: dict[InstallScope, bool] = {
            "settings": bool(self._stack),
            "all": any(installation.scope == "all" for installation in self._stack),
        }
        for scope, is_wanted in wanted.items():
            if is_wanted and scope not in self._replaced:
                self._replaced[scope] = _replace(scope)
            elif not is_wanted:
                for replaced in self._replaced.pop(scope, []):
                    replaced.restore()


def _replace(scope: InstallScope) -> list[_Replaced]:
    if scope == "all":
        return [_Replaced(owner, "__init__", _covering_new) for owner in (BaseLLM, BaseEmbedding)]
    return [
        *(_Replaced(type(Settings), name, _covering) for name in ("llm", "embed_model")),
        _Replaced(BaseSynthesizer, "synthesize", marking),
        _Replaced(BaseSynthesizer, "asynthesize", amarking),
    ]


def _covering(before: property) -> property:
    """A property of `Settings` whose models are swapped when they are set and when they are read."""
    read, write = before.fget, before.fset
    if read is None or write is None:
        raise ConfigurationError("scope", "this version of LlamaIndex has other Settings; use wrap()")

    def fget(settings: Any) -> Any:
        model = read(settings)
        _installed.cover(model, is_new=False)
        return model

    def fset(settings: Any, given: Any) -> None:
        write(settings, given)
        _installed.cover(given, is_new=False)

    return property(fget, fset, before.fdel, before.__doc__)


def _covering_new(before: Callable[..., None]) -> Callable[..., None]:
    """A constructor whose object is swapped."""

    @functools.wraps(before)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it becomes the method of this name
        before(self, *args, **kwargs)
        _installed.cover(self, is_new=True)

    return __init__


_installed: Final = _Installed()


def install(installation: Installation) -> None:
    """Let it act, in place of those before it."""
    _installed.add(installation)


def uninstall(installation: Installation) -> None:
    """Undo all it did."""
    _installed.remove(installation)
