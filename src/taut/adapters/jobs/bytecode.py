"""The bytecode of what jobs import, made before the first of them.

A confined job can write nothing. Where an installer leaves bytecode out (uv does, pip does not), every job would compile
the libraries anew, which takes longer than most trainings of a sample; so whoever starts jobs imports them once, as any
Python process does that may write beside the source.
"""

from __future__ import annotations

import os
import subprocess
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from typing import Final

_HEAVY: Final = ("skl2onnx", "sklearn.ensemble")
"""What trainings import beside their own code. The first brings most of scikit-learn, SciPy and ONNX with it."""
_PATIENCE_S: Final = 120.0


def make_bytecode(python: str, module: str) -> None:
    """Import a module of jobs, and what trainings need, in a process of its own, unless their bytecode is there.

    module: of the package taut, by its dotted name. Does nothing where the libraries' folder cannot be written. Failures
    are left to the job, which says what is wrong with an import.
    """
    wanted = [name for name in (module, *_HEAVY) if _lacks_bytecode(name)]
    if not wanted:
        return
    command = [python, "-s", "-P", "-c", f"import {', '.join(wanted)}"]
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    try:
        subprocess.run(command, env=environment, timeout=_PATIENCE_S, capture_output=True, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return


def _lacks_bytecode(name: str) -> bool:
    top, _, rest = name.partition(".")
    spec = find_spec(top)  # of the top only: that imports nothing
    if spec is None or spec.origin is None:
        return False
    source = Path(spec.origin).parent.joinpath(*rest.split("."))
    source = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
    cached = Path(cache_from_source(str(source)))
    return not cached.exists() and os.access(
        cached.parent if cached.parent.exists() else source.parent, os.W_OK
    )
