"""The command `aicache`: chooses the subcommand, and turns our errors into a line on stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, Protocol, cast

from aicache._errors import AICacheError
from aicache._version import __version__

__all__ = ["main"]

_COMMANDS: Final = {
    "eval": "replay a labelled file through a cache: hit rate, error rate, a threshold for your questions",
    "calibrate": "ask your model some questions twice, and measure how often its answers differ",
}


class _Command(Protocol):
    """A module of this package."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Say what the subcommand takes."""

    def run(self, options: Any) -> int:
        """Do it; the exit status."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if all went well, 1 if not, 2 for wrong arguments."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen = _choose(given[:1])
    # Not imported before it is chosen: each needs other packages.
    command = cast("_Command", import_module(f"aicache._commands.{chosen}"))
    parser = argparse.ArgumentParser(prog=f"aicache {chosen}", description=_COMMANDS[chosen])
    command.add_arguments(parser)
    options = parser.parse_args(given[1:])
    try:
        return command.run(options)
    except AICacheError as error:
        for note in getattr(error, "__notes__", ()):
            sys.stderr.write(f"{note}\n")
        sys.stderr.write(f"aicache {chosen}: {error}\n")
        return 1
    except BrokenPipeError:
        # Whoever read it has had enough, `head` for one. What Python flushes at its end must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130


def _choose(first: Sequence[str]) -> str:
    listed = "\n".join(f"  {name:<11}{said}" for name, said in _COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="aicache",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"commands:\n{listed}\n\n`aicache COMMAND --help` says what each one takes.",
    )
    parser.add_argument("--version", action="version", version=f"aicache {__version__}")
    parser.add_argument("command", choices=tuple(_COMMANDS))
    if not first:
        parser.print_help(sys.stderr)
        parser.exit(2)
    return str(parser.parse_args(first).command)
