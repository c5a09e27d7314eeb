"""What a process of the data plane runs, as a digest that its peers can compare with their own."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Final

import taut

_PARTS: Final = ("core", "ports", "project", "trust", "fleet", "serving")


def artifacts_digest() -> str:
    """Return the digest of the source that a replica runs: every file of the floors that serve."""
    root, digest = Path(taut.__file__).parent, hashlib.sha256()
    for part in _PARTS:
        for path in sorted((root / part).rglob("*.py")):
            data = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()} {len(data)}\n".encode() + data)
    return "sha256:" + digest.hexdigest()


def build_digest(source: str) -> str:
    """Return the digest of a process's code with all that is installed beside it, by name and version, and its Python.

    source: of `artifacts_digest`. An installation is one environment (decision 0011), so a worker has its gateway's, unless
    something was installed after that began.
    """
    installed = {
        name.removesuffix(".dist-info")
        for folder in sys.path
        if os.path.isdir(folder)
        for name in os.listdir(folder)
        if name.endswith(".dist-info")
    }
    said = "\n".join([source, sys.version, *sorted(installed)])
    return "sha256:" + hashlib.sha256(said.encode()).hexdigest()
