"""The command line. Nothing slow is imported before a command needs it: `taut --help` answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from taut.entrypoints.cli.arguments import hoist

__all__ = ["main", "run"]


def main() -> None:
    """Run the command line of this process and exit with its code."""
    # Processes that a command starts with `python -m` would look into this folder first: a project file called
    # taut.py in it would hide the package from them.
    os.environ["PYTHONSAFEPATH"] = "1"
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line and return its exit code. Errors are printed, never raised."""
    from taut.entrypoints.cli.guard import guarded

    words = hoist(arguments)
    return guarded(words, json="--json" in words, debug="--debug" in words)
