"""Which optional packages there are."""

from __future__ import annotations

import importlib.util

__all__ = ["is_installed"]


def is_installed(package: str) -> bool:
    """Whether a top-level package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
