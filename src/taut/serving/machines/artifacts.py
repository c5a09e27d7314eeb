"""Artifacts on their way to a further machine: those of the snapshot alone, in parts, taken only when their digest is right."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from taut.core.canonical import digest_bytes
from taut.core.errors import Corrupt, InvalidInput, NotFound, Unavailable
from taut.serving.files import replace_file
from taut.serving.snapshot import ServedModel, ServingSnapshot

PART_BYTES: Final = 4 * 2**20
_PLACE: Final = PurePosixPath("serving/models")

Part = tuple[bytes, int]
"""Bytes from some offset on, and the size of the whole."""


def artifacts_of(snapshot: ServingSnapshot) -> dict[str, str]:
    """Return the path, relative to a home, of each artifact that a snapshot's endpoints need, by its digest."""
    return {
        one.artifact: one.path
        for config in snapshot.endpoints
        for model in config.models
        for one in (model, *_nodes(model))
    }


def _nodes(model: ServedModel) -> Iterator[ServedModel]:
    for node in model.nodes.values():
        yield node
        yield from _nodes(node)


def read_part(home: Path, snapshot: ServingSnapshot | None, digest: str, offset: int) -> Part:
    """Read a part of an artifact that the snapshot names, where control placed it.

    Raises NotFound for any other, InvalidInput for an offset that it has not.
    """
    path = None if snapshot is None else artifacts_of(snapshot).get(digest)
    if path is None:
        raise NotFound(f"no endpoint serves the artifact {digest[:80]}: follow to the newest snapshot")
    try:
        with (home / path).open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if not 0 <= offset <= size_bytes:
                raise InvalidInput(f"offset {offset} is outside the {size_bytes} bytes of the artifact")
            file.seek(offset)
            return file.read(PART_BYTES), size_bytes
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be read ({error.strerror}): restart control, it places it"
        ) from error


def place(home: Path, digest: str, path: str, ask: Callable[[int], Part]) -> bool:
    """Have an artifact lie at its path below `home`, whole and durable; return whether it had to be fetched.

    ask: returns the part from an offset on. What lies there already is believed only by its digest; gateways verify it
    again when they load it. Raises Corrupt for bytes of another digest or a path outside the place of models, and what
    `ask` raises.
    """
    target = _target(home, path)
    if target.exists() and digest_bytes(target.read_bytes()) == digest:
        return False
    found = bytearray()
    while True:
        part, size_bytes = ask(len(found))
        found += part
        if len(found) >= size_bytes or not part:
            break
    data = bytes(found)
    if digest_bytes(data) != digest:
        raise Corrupt(
            f"the artifact {digest} came with other bytes ({len(found)}): it is not used, and asked for again"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(target, data, temporary=target.with_name(f".{target.name}.{os.getpid()}.tmp"))
    except OSError as error:
        raise Unavailable(
            f"{target} cannot be written ({error.strerror}): free disk space or mend its rights"
        ) from error
    return True


def _target(home: Path, path: str) -> Path:
    """Return where an artifact goes. What control's key signed is believed, but not that it is harmless here."""
    pure = PurePosixPath(path)
    if pure.parent != _PLACE or pure.name in ("", ".", "..") or pure.name.startswith("."):
        raise Corrupt(
            f"the snapshot names {path[:120]!r} as the place of an artifact: only files in {_PLACE} are taken"
        )
    return home / _PLACE / pure.name
