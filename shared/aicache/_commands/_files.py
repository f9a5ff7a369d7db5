"""What the subcommands do with files."""

from __future__ import annotations

from pathlib import Path

from aicache._errors import ConfigurationError

__all__ = ["check_place"]


def check_place(parameter: str, path: Path | None) -> None:
    """Find out before the work is done that its result cannot be written there.

    Raises:
        ConfigurationError: it is a folder, or in none.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigurationError(parameter, f"name a file; {path} is a folder")
    if not path.parent.is_dir():
        raise ConfigurationError(parameter, f"there is no folder {path.parent}")
