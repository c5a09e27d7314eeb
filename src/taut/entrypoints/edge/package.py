"""Putting the one file together: from the installed package's own files, the model and what signs for both."""

from __future__ import annotations

import ast
import io
import zipfile
from collections.abc import Iterator, Mapping
from importlib.resources import files as package_files
from typing import Final

from taut.core.errors import NotFound

_ROOTS: Final = ("taut.entrypoints.edge.main", "taut.entrypoints.edge.answering")
_LAUNCH: Final = "entrypoints/edge/launch.py"
_REQUIREMENTS: Final = "entrypoints/edge/requirements.txt"
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_MODE: Final = 0o644 << 16
_SHEBANG: Final = b"#!/usr/bin/env python3\n"


def runner_files() -> dict[str, bytes]:
    """Return the runner's files by their names in the bundle: its modules, `__main__.py` and `requirements.txt`.

    Which modules it needs is read from the imports at the head of each, beginning with the runner's own; an import inside
    a function is somebody else's need. Raises NotFound when a module is not installed as source.
    """
    found: dict[str, bytes] = {}
    todo = list(_ROOTS)
    while todo:
        module = todo.pop()
        for name in _with_packages(module):
            path = _path(name)
            if path is None or path in found:
                continue
            found[path] = source = _read(path.removeprefix("taut/"))
            todo += _imports(source)
    return {**found, "__main__.py": _read(_LAUNCH), "requirements.txt": _read(_REQUIREMENTS)}


def assemble(files: Mapping[str, bytes]) -> bytes:
    """Return the one file; equal files give equal bytes, whatever machine and hour it is. Nothing is compressed, since
    compressors differ from one machine to the next."""
    buffer = io.BytesIO(_SHEBANG)
    buffer.seek(len(_SHEBANG))
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system, entry.external_attr = 3, _MODE
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def _with_packages(module: str) -> Iterator[str]:
    parts = module.split(".")
    return (".".join(parts[: end + 1]) for end in range(len(parts)))


def _path(module: str) -> str | None:
    """Return where a module's source lies; None for a name that is no module, as in `from room import Value`."""
    base = package_files("taut")
    parts = module.split(".")[1:]
    for tail in ([*parts, "__init__.py"], [*parts[:-1], f"{parts[-1]}.py"] if parts else []):
        if tail and base.joinpath(*tail).is_file():
            return "/".join(["taut", *tail])
    return None


def _read(path: str) -> bytes:
    found = package_files("taut").joinpath(*path.split("/"))
    if not found.is_file():
        raise NotFound(f"taut/{path} is not installed as a file: install taut from its wheel, with sources")
    return found.read_bytes()


def _imports(source: bytes) -> list[str]:
    """Return the modules of taut that a module imports when it is imported itself."""
    names: list[str] = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.partition(".")[0] == "taut"]
