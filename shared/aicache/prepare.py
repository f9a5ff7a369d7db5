"""Downloads and converts a local embedding model ahead of time, so that no question waits for it.

    python -m aicache.prepare [MODEL]

MODEL is what `OnnxEmbedder` takes; without it, the model that a cache uses by default. Run again, it only checks.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from aicache._errors import AICacheError
from aicache.embedders._resolve import DEFAULT_MODEL
from aicache.embedders.onnx import OnnxEmbedder

__all__ = ["main", "prepare"]


def prepare(model: str = DEFAULT_MODEL, *, say: Callable[[str], None] | None = None) -> OnnxEmbedder:
    """The embedder of a model, loaded and tried on one word.

    Args:
        model: a folder or a name, as `OnnxEmbedder` takes it.
        say: told what is being done; None writes to stderr.

    Raises:
        AICacheError: the model cannot be had or run; the text says what to do.
    """
    tell = say or _to_stderr
    started = time.monotonic()
    embedder = OnnxEmbedder(model)
    file = embedder.load(tell)
    dimension = embedder.embed(["hello"]).shape[1]
    tell(
        f"aicache: {embedder.name} is ready ({dimension} dimensions, {file.stat().st_size / 1e6:.0f} MB, "
        f"{time.monotonic() - started:.1f} s): {file}"
    )
    return embedder


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if the model is ready."""
    parser = argparse.ArgumentParser(prog="python -m aicache.prepare", description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help="a folder or a name; default: %(default)s")
    model = parser.parse_args(arguments).model
    try:
        prepare(model)
    except AICacheError as error:
        for note in getattr(error, "__notes__", ()):
            _to_stderr(note)
        _to_stderr(f"aicache: {error}")
        return 1
    return 0


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
