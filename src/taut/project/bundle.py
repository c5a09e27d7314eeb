"""The bundle: a project's code as one deterministic zip, which jobs run and control never does.

Equal code gives equal bytes on every machine: names sorted, times fixed, nothing compressed (the output of zlib
differs between its versions), no owner, no mode. Data, state, environments and caches never enter it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec

from taut.core.canonical import digest_bytes
from taut.core.errors import InvalidInput, NotFound
from taut.project.archive import read_archive, write_archive
from taut.project.imports import import_module
from taut.project.manifest import FunctionRef

MAX_BUNDLE_BYTES: Final = 16 * 2**20
MAX_FILES: Final = 2_000
MAX_FOLDERS: Final = 10_000

PROJECT_MODULE: Final = "taut_project"
"""Module name of a project file called `taut.py`, whose own name would hide the package."""

_IGNORED: Final = frozenset({"__pycache__", "node_modules", "site-packages"})


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """An opened bundle, checked: every name is relative and plain, every size within bounds."""

    digest: str
    files: dict[str, bytes]

    def extract(self, into: Path) -> None:
        """Write the files below `into`, which must be empty or absent; nothing outside it is touched."""
        into.mkdir(parents=True, exist_ok=True)
        if any(into.iterdir()):
            raise InvalidInput(f"{into} is not empty: extract a bundle into a folder of its own")
        for name, data in self.files.items():
            target = into.joinpath(*PurePosixPath(name).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def make_bundle(root: Path, *, named: Iterable[str | Path] = (), project_file: Path | None = None) -> bytes:
    """Return the bundle of the code below `root`.

    root: the project's folder; every `.py` file below it enters, but for hidden folders, environments and caches.
    named: other files of that folder that the project names, such as contracts; relative to `root` or absolute.
    project_file: the project file; one called `taut.py` enters as `taut_project.py`.
    Raises InvalidInput on a symbolic link, a named file outside `root`, or a bundle beyond the bounds; NotFound for
    an absent folder or file.
    """
    root = root.resolve()
    if not root.is_dir():
        raise NotFound(f"no project folder {root}: name the folder that holds the project file")
    files: dict[str, bytes] = {}
    size = 0
    for path in [*_code_files(root), *(_named_file(root, item) for item in named)]:
        name = path.relative_to(root).as_posix()
        if name in files:
            continue
        size += path.stat().st_size
        if size > MAX_BUNDLE_BYTES or len(files) >= MAX_FILES:
            raise InvalidInput(
                f"the code below {root} passes {MAX_FILES:,} files or {MAX_BUNDLE_BYTES // 2**20} MiB (at {name}): "
                "keep the project in a folder of its own, and data out of .py files"
            )
        files[name] = _read(path)
    _rename_project_file(files, root, project_file)
    return write_archive(files)


def open_bundle(path: Path) -> Bundle:
    """Open and check a bundle; see `parse_bundle`. Raises NotFound for an absent file."""
    try:
        return parse_bundle(path.read_bytes(), what=path.name)
    except FileNotFoundError as error:
        raise NotFound(f"no bundle at {path}: apply the project again") from error


def parse_bundle(data: bytes, *, what: str = "bundle") -> Bundle:
    """Check the bytes of a bundle and return its files.

    Raises Corrupt for anything that `make_bundle` cannot have written: a broken zip, a name that leaves the folder, a
    link, a name given twice, an encrypted or compressed entry, a size beyond the bounds.
    """
    files = read_archive(
        data, what=what, remedy="apply the project again", max_bytes=MAX_BUNDLE_BYTES, max_files=MAX_FILES
    )
    return Bundle(digest=digest_bytes(data), files=files)


def load_function(bundle_path: Path, ref: FunctionRef, *, into: Path) -> Callable[..., Any]:
    """Extract a bundle into the empty folder `into`, import its code from there and return the function `ref`.

    `into` stays first on `sys.path`, so that what the function imports later comes from the bundle too: call this in
    a process of its own.
    Raises Corrupt for a bundle that was changed; InvalidInput when the module or function is missing, fails to import
    (with file, line and what to do), or is hidden by an installed package of the same name.
    """
    open_bundle(bundle_path).extract(into)
    folder = into.resolve()
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    module = import_module(ref.module, folder)
    found: Any = module
    for part in ref.qualname.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise InvalidInput(
            f"no function {ref.qualname!r} in module {ref.module!r} of the bundle: define it at the top of a module, "
            "not inside another function, and apply the project again"
        )
    return found  # type: ignore[no-any-return]  # callable() narrows Any to Any


def module_name(path: Path, root: Path) -> str:
    """Return the name under which the file `path` is imported with `root` first on the path."""
    relative = path.resolve().relative_to(root.resolve()).with_suffix("")
    parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
    return PROJECT_MODULE if parts == ("taut",) else ".".join(parts)


def _code_files(root: Path) -> Iterator[Path]:
    for count, (folder, names, files) in enumerate(os.walk(root)):
        if count > MAX_FOLDERS:
            raise InvalidInput(
                f"{root} holds more than {MAX_FOLDERS:,} folders: keep the project in one of its own"
            )
        names[:] = sorted(name for name in names if _enters(Path(folder, name)))
        for name in sorted(files):
            if name.endswith(".py"):
                yield _plain(Path(folder, name))


def _enters(folder: Path) -> bool:
    if folder.name.startswith(".") or folder.name in _IGNORED or (folder / "pyvenv.cfg").exists():
        return False
    if folder.is_symlink():
        if any(folder.glob("*.py")):
            raise InvalidInput(
                f"{folder} is a symbolic link to code: copy the code into the project's folder"
            )
        return False  # a link to data: no code, so nothing of it belongs in a bundle
    return True


def _plain(path: Path) -> Path:
    if path.is_symlink() or not path.is_file():
        raise InvalidInput(f"{path} is a symbolic link or no plain file: copy it into the project's folder")
    return path


def _named_file(root: Path, item: str | Path) -> Path:
    path = root / item
    if not path.resolve().is_relative_to(root):
        raise InvalidInput(f"{item} lies outside the project's folder {root}: move it there")
    if not path.exists():
        raise NotFound(f"no file {path}, which the project names: check the path")
    path = Path(os.path.normpath(path))
    return _plain(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}): mend its permissions") from error


def _rename_project_file(files: dict[str, bytes], root: Path, project_file: Path | None) -> None:
    own = "taut.py" if project_file is None else _relative(project_file, root)
    if own != "taut.py" or own not in files:
        return
    renamed = f"{PROJECT_MODULE}.py"
    if renamed in files:
        raise InvalidInput(f"{root} holds both taut.py and {renamed}: keep one")
    files[renamed] = files.pop(own)


def _relative(path: Path, root: Path) -> str:
    resolved = path.resolve()
    if not resolved.is_relative_to(root):
        raise InvalidInput(f"the project file {path} lies outside the project's folder {root}")
    return resolved.relative_to(root).as_posix()
