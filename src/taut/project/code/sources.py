"""Importing a project's modules from memory: nothing of it lies on a disk, and it hides neither Python nor taut."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Final

ROOT: Final = "project"
"""Folder that tracebacks show a module's file in; there is no such folder."""


def path_of(files: Mapping[str, bytes], module: str) -> str | None:
    """Return the file of a module in a bundle, None where it has none."""
    stem = module.replace(".", "/")
    return next((path for path in (f"{stem}.py", f"{stem}/__init__.py") if path in files), None)


def is_hidden(module: str) -> bool:
    """Whether a module's name belongs to Python or to taut, which a project's file of that name never replaces."""
    top = module.partition(".")[0]
    return top == "taut" or top in sys.stdlib_module_names


class Sources(MetaPathFinder, InspectLoader):
    """Finds and loads the modules of a bundle, ahead of what is installed, as where the model was trained.

    Of several bundles in one process one is active: its modules are those that an import finds, at whatever time. So two
    models that have modules of one name do not meet. One thread at a time.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files: Final = files
        self._aside: Final[dict[str, ModuleType]] = {}

    def activate(self) -> None:
        """Let imports find this bundle's modules, and put those of others aside."""
        if sys.meta_path and sys.meta_path[0] is self:
            return
        for other in [finder for finder in sys.meta_path if isinstance(finder, Sources)]:
            other.put_aside()
        sys.meta_path.insert(0, self)
        sys.modules.update(self._aside)
        self._aside.clear()

    def put_aside(self) -> None:
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
        for name in [name for name, module in list(sys.modules.items()) if self._loaded(module)]:
            self._aside[name] = sys.modules.pop(name)

    def remove(self) -> None:
        """Forget what was loaded."""
        self.put_aside()
        self._aside.clear()

    def _loaded(self, module: ModuleType) -> bool:
        spec = getattr(module, "__spec__", None)
        places = getattr(spec, "submodule_search_locations", None) or []
        return getattr(spec, "loader", None) is self or any(
            str(place).startswith(f"{ROOT}/") for place in places
        )

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the finder's face; a module's own name says where it lies
        target: ModuleType | None = None,  # noqa: ARG002 - as path
    ) -> ModuleSpec | None:
        if is_hidden(fullname):
            return None
        found = path_of(self._files, fullname)
        folder = fullname.replace(".", "/")
        if found is not None:
            package = found.endswith("/__init__.py")
            spec = ModuleSpec(fullname, self, origin=f"{ROOT}/{found}", is_package=package)
            spec.has_location = True  # so that the module has a __file__ for messages
            if package:
                spec.submodule_search_locations = [f"{ROOT}/{folder}"]
            return spec
        if any(name.startswith(f"{folder}/") and name.endswith(".py") for name in self._files):
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [f"{ROOT}/{folder}"]
            return spec
        return None

    def get_source(self, fullname: str) -> str:
        """Return a module's text, for tracebacks."""
        return self._read(fullname)[1].decode("utf-8", "replace")

    def get_code(self, fullname: str) -> CodeType:
        path, data = self._read(fullname)
        return compile(data, f"{ROOT}/{path}", "exec", dont_inherit=True)

    def is_package(self, fullname: str) -> bool:
        return self._read(fullname)[0].endswith("/__init__.py")

    def _read(self, fullname: str) -> tuple[str, bytes]:
        path = path_of(self._files, fullname)
        if path is None:
            raise ImportError(f"the project has no module {fullname!r}", name=fullname)
        return path, self._files[path]
