"""The command `aicache`: one module a subcommand, imported only when it is chosen."""

from __future__ import annotations

__all__: list[str] = []
