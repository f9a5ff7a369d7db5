"""Checks an installation of the bare package, in an environment of its own: `python -I .ci/check_core.py`."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import distributions, files
from pathlib import Path

__all__: list[str] = []

EXPECTED = {"aicache", "orjson", "platformdirs", "pybreaker"}
ADAPTERS = {"langchain_aicache": "langchain", "llamaindex_aicache": "llamaindex"}
TOOLS = {"pip", "setuptools", "wheel"}
MAX_BYTES = 1_800_000


def main() -> None:
    """Exit with a message at the first thing that is not as promised."""
    installed = {distribution.name for distribution in distributions()} - TOOLS
    if installed != EXPECTED:
        sys.exit(f"a bare install brought {sorted(installed)}, and not {sorted(EXPECTED)}")

    import aicache

    if "site-packages" not in Path(aicache.__file__).parts:
        sys.exit(f"this checks the checkout and not an installation: {aicache.__file__}")

    size = sum(Path(file.locate()).stat().st_size for file in files("aicache") or () if file.suffix == ".py")
    if size > MAX_BYTES:
        sys.exit(f"the package has grown to {size} bytes")

    for adapter, extra in ADAPTERS.items():
        try:
            import_module(adapter)
        except ImportError as error:  # It must say what to install.
            if f"aicache[{extra}]" not in str(error):
                sys.exit(f"a missing extra is not named: {error}")
        else:
            sys.exit(f"{adapter} imported without its framework")

    from aicache.stores import open_store

    open_store("memory://").close()
    print(  # noqa: T201 - a script
        f"bare install: {', '.join(sorted(installed))}; {size} bytes of source"
    )


if __name__ == "__main__":
    main()
