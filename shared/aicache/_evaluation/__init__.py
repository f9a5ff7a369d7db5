"""Replays a labelled stream of questions through the matcher core and says how often it was right."""

from __future__ import annotations

__all__: list[str] = []
