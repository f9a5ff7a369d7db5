"""Replays a labelled stream of questions through a real cache and says how often it was right.

Modules: `_streams` (a file as a stream, and what happens to it); `_world` (true answers, a comparator that may err);
`_embedded` (the vectors, computed once); `_settings` (what is tried); `_store` (memory, with a stop-watch); `_run` (one
replay); `_jobs` (many of them, in several processes); `_bound` (what counts prove, and a threshold for the file);
`_report`, `_plot`, `_progress` (what people see).
"""

from __future__ import annotations

__all__: list[str] = []
