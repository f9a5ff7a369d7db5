"""The swap: an object gets a subclass of its own class, which asks the cache first.

The object stays what it is: same identity, same fields and private attributes, an instance of the same classes. A
wrapper around it would be none of these, and LlamaIndex would count its calls twice.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, Protocol, TypeVar, cast
from uuid import uuid4
from weakref import WeakValueDictionary, ref

from pydantic import BaseModel

from aicache._errors import ConfigurationError

__all__ = ["Alive", "Attach", "Swapper", "swapper_of"]

T = TypeVar("T", bound=BaseModel)

_MARK: Final = "__aicache_swapper__"
"""Where a swapped class names its swapper."""
_ORIGINAL: Final = "__aicache_original__"
"""Where it names the class that it stands for."""


class Attach(Protocol):
    """Gives a fresh subclass its methods."""

    def __call__(self, swapped: type, swapper: Swapper[Any], /) -> None: ...


class Alive(Generic[T]):
    """Objects by identity, as long as somebody else holds them: models have no hash."""

    def __init__(self) -> None:
        self._known: dict[int, ref[T]] = {}

    def __iter__(self) -> Iterator[T]:
        for weak in list(self._known.values()):
            thing = weak()
            if thing is not None:
                yield thing

    def add(self, thing: T) -> None:
        """Remember it."""
        number, known = id(thing), self._known
        known[number] = ref(thing, lambda _: known.pop(number, None))

    def discard(self, thing: T) -> None:
        """Forget it."""
        self._known.pop(id(thing), None)


class Swapper(Generic[T]):
    """Swaps objects for one cache, and restores them.

    Each class met gets one subclass. Copies of a swapped object are swapped too.

    Args:
        attach: gives a fresh subclass its methods.
        owner: on whose behalf.
    """

    def __init__(self, attach: Attach, *, owner: object = None) -> None:
        self._attach = attach
        self.owner = owner
        self._classes: dict[type, type] = {}
        self._swapped: Alive[T] = Alive()
        self.token: Final = uuid4().hex
        """What a pickled object carries to find its swapper again, in this process or a child of it."""
        self.is_active = True
        """False after `restore_all`: a class that is still in use then, as of an object being called, adds nothing."""
        _SWAPPERS[self.token] = self

    def swap(self, thing: T) -> T:
        """The same object, its class swapped.

        Raises:
            ConfigurationError: Python, or the class itself, refuses to be extended.
        """
        kind = type(thing)
        try:
            _set_class(thing, self._class_for(kind))
        except Exception as error:  # hooks of the application's classes may raise anything
            raise ConfigurationError("model", f"a {kind.__qualname__} cannot be cached: {error}") from error
        self._swapped.add(thing)
        self.is_active = True
        return thing

    def restore(self, thing: T) -> None:
        """Give the object its own class back."""
        self._swapped.discard(thing)
        if swapper_of(thing) is self:
            _set_class(thing, type(thing).__bases__[0])

    def restore_all(self) -> None:
        """Give all objects that are still alive their own classes back."""
        self.is_active = False
        for thing in self._swapped:
            self.restore(thing)

    def remember(self, thing: T) -> None:
        """Take a copy of a swapped object, whose class is swapped already, into account."""
        self._swapped.add(thing)

    def _class_for(self, base: type) -> type:
        found = self._classes.get(base)
        # Two threads may both make one; all use the one that was first in the dictionary.
        return found if found is not None else self._classes.setdefault(base, self._make_class(base))

    def _make_class(self, base: type) -> type:
        names = {name: getattr(base, name) for name in ("__module__", "__qualname__", "__doc__")}
        # Not through pydantic's metaclass: validator, serialiser and fields are those of the base, inherited, and need
        # not be built anew, which fails where an annotation can no longer be resolved.
        meta = cast("type[ABCMeta]", type(base))
        swapped: Any = ABCMeta.__new__(meta, base.__name__, (base,), {**names, "__slots__": ()})
        # Set now and not in the class body: there LlamaIndex would add a span to each method.
        setattr(swapped, _MARK, self)
        setattr(swapped, _ORIGINAL, base)
        # What pydantic compares instead of the class: a swapped object equals one that is not, if all fields do.
        generic = base.__pydantic_generic_metadata__  # type: ignore[attr-defined]
        swapped.__pydantic_generic_metadata__ = {**generic, "origin": generic["origin"] or base}
        _attach_copying(swapped, self)
        self._attach(swapped, self)
        return cast("type", swapped)

    def revive(self, thing: T) -> None:
        """Swap an object that is being unpickled or copied, if swapping still goes on."""
        if self.is_active:
            self.swap(thing)


_SWAPPERS: Final[WeakValueDictionary[str, Swapper[Any]]] = WeakValueDictionary()
"""By token, for unpickling, which has nothing else to start from."""


def swapper_of(thing: object) -> Swapper[Any] | None:
    """Who swapped this object's class; None if nobody did."""
    # Not inherited: a class that a user derives from a swapped one is not ours to take back.
    return cast("Swapper[Any] | None", type(thing).__dict__.get(_MARK))


def _set_class(thing: object, kind: type) -> None:
    object.__setattr__(thing, "__class__", kind)  # pydantic's own refuses


def _attach_copying(swapped: Any, swapper: Swapper[Any]) -> None:
    base = swapped.__bases__[0]

    def remembering(name: str) -> Callable[..., Any]:
        def method(self: Any, *args: Any) -> Any:
            made = getattr(super(swapped, self), name)(*args)
            if swapper_of(made) is swapper:
                swapper.remember(made)
            return made

        method.__name__ = name
        return method

    def __reduce_ex__(self: Any, protocol: Any) -> Any:  # noqa: N807 - it becomes the method of this name
        # The class is found under no name, so the pickle says the base and whose it was.
        reduced = super(swapped, self).__reduce_ex__(protocol)
        if type(self) is not swapped or not isinstance(reduced, tuple):
            return reduced
        make, given, *rest = reduced
        args = tuple(base if arg is swapped else arg for arg in given)
        return (_revive, (swapper.token, make, args), *rest)

    for name in ("__copy__", "__deepcopy__"):
        setattr(swapped, name, remembering(name))
    swapped.__reduce_ex__ = __reduce_ex__


def _revive(token: str, make: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """An unpickled object, cached again where its cache lives; elsewhere a plain one."""
    thing = make(*args)
    swapper = _SWAPPERS.get(token)
    if swapper is not None:
        swapper.revive(thing)
    return thing
