"""Artifacts as they lie on disk, believed only with the digest that was signed."""

from __future__ import annotations

from pathlib import Path

from taut.core.canonical import digest_bytes
from taut.core.errors import Corrupt
from taut.serving.graphs import checked_plan
from taut.serving.snapshot import ServedModel


def check_artifacts(served: ServedModel, home: Path) -> int:
    """Return the bytes of all artifacts of a version. Raises Corrupt when they are not those that were signed."""
    data = read_artifact(served, home)
    if served.nodes:
        checked_plan(served, data)
    return len(data) + sum(len(read_artifact(node, home)) for node in served.nodes.values())


def read_artifact(served: ServedModel, home: Path) -> bytes:
    """Return the artifact's bytes. Raises Corrupt when they are not those that were signed."""
    path = home / served.path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Corrupt(
            f"{served.version}: {path} cannot be read ({error.strerror}): restore the artifact"
        ) from error
    found = digest_bytes(data)
    if found != served.artifact:
        raise Corrupt(
            f"{served.version}: {path} has digest {found}, signed was {served.artifact}: restore the artifact"
        )
    return data
