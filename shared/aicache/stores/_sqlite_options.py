"""What an embedded store is given, checked."""

from __future__ import annotations

from pathlib import Path

from aicache._errors import ConfigurationError

__all__ = ["absolute_path", "whole_number"]


def whole_number(parameter: str, value: int, *, least: int) -> int:
    """The value.

    Raises:
        ConfigurationError: it is no whole number of at least `least`.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigurationError(parameter, f"give a whole number of at least {least}; got {value!r}")
    return value


def absolute_path(path: str | Path) -> Path:
    """The absolute path, links followed: SQLite puts its log beside the real file.

    Raises:
        ConfigurationError: no file can be there.
    """
    if str(path) == ":memory:":
        raise ConfigurationError("path", "give the path of a file; MemoryStore keeps answers in memory")
    try:
        resolved = Path(path).expanduser().resolve()
        folder = resolved.is_dir()
    except (OSError, RuntimeError):
        return Path(path).absolute()
    except ValueError:
        raise ConfigurationError("path", "give the path of a file; it has a character no path can have") from None
    if folder:
        raise ConfigurationError("path", f"give the path of a file; {resolved} is a folder")
    return resolved
