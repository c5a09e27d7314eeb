"""The environment that a model's code was trained in: the installed packages that it imports, by version."""

from __future__ import annotations

import ast
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from taut.core.errors import InvalidInput
from taut.project.code.sources import is_hidden, path_of


def environment_of(files: Mapping[str, bytes], module: str) -> dict[str, Any]:
    """Return `requires` and `python` of a module: what it and the project's modules that it imports need.

    requires: distribution -> version, of what is installed here; an import that only some machines can make is not in it.
    """
    from importlib.metadata import version

    known = _distributions(tuple((path, _changed_ns(path)) for path in sys.path))
    needed = {name for top in imports_of(files, module) for name in known.get(top, ())}
    return {"requires": {name: version(name) for name in sorted(needed)}, "python": _python()}


@lru_cache(maxsize=1)
def _distributions(_installed: tuple[tuple[str, int], ...]) -> Mapping[str, list[str]]:
    """Return the distributions that give each top name: a third of a second, until a folder of packages changes."""
    from importlib.metadata import packages_distributions

    return packages_distributions()


def _changed_ns(path: str) -> int:
    try:
        return os.stat(path or ".").st_mtime_ns
    except OSError:
        return 0


def check_environment(requires: Mapping[str, str], python: str) -> None:
    """Raise InvalidInput where a package is not there in the version that the code was trained with."""
    from importlib.metadata import PackageNotFoundError, version

    if python != _python():
        raise InvalidInput(
            f"the model's code was trained with Python {python}, and this is {_python()}: train it again here"
        )
    for name, wanted in requires.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "not there"
        if found != wanted:
            raise InvalidInput(
                f"the model's code was trained with {name} {wanted}, which is {found} here: install that version, or train "
                "the model again"
            )


def imports_of(files: Mapping[str, bytes], module: str) -> set[str]:
    """Return the top names of what a module of a bundle imports from outside, by way of the project's own modules too."""
    found: set[str] = set()
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        path = path_of(files, name)
        if name in seen:
            continue
        seen.add(name)
        if path is None:
            top = name.partition(".")[0]
            inside = any(file == f"{top}.py" or file.startswith(f"{top}/") for file in files)
            if not inside and not is_hidden(name):
                found.add(top)
            continue
        parents = name.split(".")
        todo += [".".join(parents[:count]) for count in range(1, len(parents))]
        try:
            tree = ast.parse(files[path])
        except (SyntaxError, ValueError, RecursionError):
            continue  # what cannot be read is not imported either, and that says why
        todo += imported(tree, name, package=path.endswith("/__init__.py"))
    return found


def imported(tree: ast.AST, module: str, *, package: bool) -> Iterator[str]:
    """Yield the modules that code of a module may import; of `from a import b` both `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                around = module.split(".")
                kept = around[: len(around) - node.level + (1 if package else 0)]
                base = ".".join([*kept, *([base] if base else [])]) if kept else ""
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _python() -> str:
    return (
        ".".join(platform.python_version_tuple()[:2]) if sys.implementation.name == "cpython" else sys.version
    )
