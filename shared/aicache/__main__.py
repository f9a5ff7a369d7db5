"""`python -m aicache`: the command `aicache`."""

from __future__ import annotations

import sys

from aicache._commands.main import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
