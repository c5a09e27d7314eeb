"""Loading a project file: its code runs here, in the command's process, and becomes a manifest and a bundle."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from taut.core.canonical import digest_bytes
from taut.core.errors import InvalidInput, NotFound
from taut.project.bundle import make_bundle, module_name
from taut.project.datasets import Dataset
from taut.project.declare import Collection, collecting
from taut.project.freeze import freeze
from taut.project.imports import import_file
from taut.project.manifest import Manifest

FILES: Final = ("taut.py", "project.py")
"""Names of project files that are found without being named."""


class LoadedProject(msgspec.Struct, frozen=True, kw_only=True):
    """A project once loaded. `bundle` is what `manifest.bundle` is the digest of."""

    file: str
    manifest: Manifest
    bundle: bytes


def find_project_file(folder: Path) -> Path:
    """Return the project file of a folder. Raises NotFound when there is none, InvalidInput when there are two."""
    found = [folder / name for name in FILES if (folder / name).is_file()]
    if not found:
        raise NotFound(
            f"no project file in {folder}: write taut.py or project.py there, name one with --project, "
            "or begin with `taut init DIR`"
        )
    if len(found) > 1:
        raise InvalidInput(f"{folder} holds both {' and '.join(FILES)}: keep one, or name one with --project")
    return found[0]


def load_project(file: Path, *, environment: str | None = None) -> LoadedProject:
    """Run a project file and freeze what it declares.

    file: the project file; its folder is the project's root, first on the import path while it loads.
    Raises NotFound for an absent file; InvalidInput, with file and line, for anything wrong in the code or in what it
    declares.
    """
    file = file.resolve()
    if not file.is_file():
        raise NotFound(f"no project file {file}: check the path, or begin with `taut init DIR`")
    root = file.parent
    with _importable(root), collecting() as collection:
        import_file(file, module_name(file, root), root)
    if not collection.declarations:
        raise InvalidInput(f"{file.name} declares nothing: begin with flights = taut.Dataset(...)")
    bundle = make_bundle(root, named=_named_files(collection), project_file=file)
    manifest = freeze(collection, root, bundle=digest_bytes(bundle), environment=environment)
    return LoadedProject(file=str(file), manifest=manifest, bundle=bundle)


def _named_files(collection: Collection) -> list[str]:
    contracts = [item.thing.contract for item in collection.of("dataset") if isinstance(item.thing, Dataset)]
    return sorted({contract.path for contract in contracts if contract.path is not None})


@contextmanager
def _importable(root: Path) -> Iterator[None]:
    """Put `root` first on the import path, and forget afterwards what was imported from there.

    So a second load, of the same project changed or of another one, runs the files that are there then.
    """
    before = dict(sys.modules)
    path = list(sys.path)
    writes = sys.dont_write_bytecode
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True  # a cached module of the same second and size would hide an edit
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = path
        sys.dont_write_bytecode = writes
        for name, module in list(sys.modules.items()):
            origin = getattr(module, "__file__", None)
            if name not in before and origin and Path(origin).is_relative_to(root):
                del sys.modules[name]
