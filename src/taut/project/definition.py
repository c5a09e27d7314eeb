"""What a function of a bundle computes by, told apart from what else changed in the project."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from taut.core.canonical import digest_json
from taut.core.errors import Corrupt
from taut.project.code.needs import imported
from taut.project.code.sources import path_of
from taut.project.manifest import FunctionRef

_Node = TypeVar("_Node", bound=ast.AST)
_DEFINES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def definition_digest(files: Mapping[str, bytes], ref: FunctionRef) -> str:
    """Return the digest of a function's code and of all of the project's code that it names.

    Of its own module that is what it names there, by way of other names too; of the project's modules that are imported
    for that, the whole. Comments, layout, docstrings and the function's own decorators do not count.
    Guarantees: equal digests mean that the same code of the project runs. Not seen: installed packages, files that the
    code reads, and names that it makes up while it runs. Digests of two Python versions are not compared.
    Raises Corrupt where the bundle has no such function, or it cannot be read.
    """
    path = path_of(files, ref.module)
    tree = None if path is None else _parsed(files, path)
    first = ref.qualname.partition(".")[0]
    if path is None or tree is None or not any(first in _bound(one) for one in tree.body):
        raise Corrupt(
            f"the bundle has no function {ref.qualname!r} in {ref.module!r}: apply the project again"
        )
    used = _used(tree.body, first)
    package = path.endswith("/__init__.py")
    modules = _modules(files, [name for one in used for name in imported(one, ref.module, package=package)])
    code = [ast.dump(_bare(one, undecorated=first in _bound(one))) for one in used]
    return digest_json({"function": ref.qualname, "code": code, "modules": modules})


def _used(body: Sequence[ast.stmt], first: str) -> list[ast.stmt]:
    """Return the statements of a module that bind a name, and those that bind what these name, in their order."""
    found: set[int] = set()
    names, todo = {first}, [first]
    while todo:
        name = todo.pop()
        for index, one in enumerate(body):
            if index in found or name not in _bound(one):
                continue
            found.add(index)
            fresh = _named(_bare(one, undecorated=name == first)) - names
            names |= fresh
            todo += sorted(fresh)
    return [body[index] for index in sorted(found)]


def _named(statement: ast.stmt) -> set[str]:
    """Return the names of the module that a statement uses: none of its parameters and of what it binds inside."""
    found: set[str] = set()
    todo = [symtable.symtable(ast.unparse(statement), "bundle", "exec")]
    while todo:
        table = todo.pop()
        todo += table.get_children()
        inside = table.get_type() == "function"
        found |= {
            one.get_name()
            for one in table.get_symbols()
            if one.is_referenced() and (one.is_global() or not inside)
        }
    return found


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement at the top of a module binds."""
    if isinstance(statement, _DEFINES):
        return {statement.name}
    found: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, _DEFINES):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def _modules(files: Mapping[str, bytes], todo: list[str]) -> dict[str, str]:
    """Return the code of the project's modules among these, and of those that they import, by file."""
    found: dict[str, str] = {}
    while todo:
        name = todo.pop()
        parents = name.split(".")
        for count in range(1, len(parents) + 1):
            module = ".".join(parents[:count])
            path = path_of(files, module)
            if path is None or path in found:
                continue
            tree = _parsed(files, path)
            found[path] = ast.dump(_bare(tree))
            todo += imported(tree, module, package=path.endswith("/__init__.py"))
    return found


def _parsed(files: Mapping[str, bytes], path: str) -> ast.Module:
    try:
        return ast.parse(files[path])
    except (SyntaxError, ValueError, RecursionError) as error:
        raise Corrupt(f"{path} of the bundle cannot be read: apply the project again") from error


def _bare(node: _Node, *, undecorated: bool = False) -> _Node:
    """Return the node without its docstrings, and without its own decorators where `undecorated`."""
    for one in ast.walk(node):
        if isinstance(one, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            head = one.body[:1]
            if head and isinstance(head[0], ast.Expr) and isinstance(head[0].value, ast.Constant):
                one.body = one.body[1:] or [ast.Pass()]
    if undecorated and isinstance(node, _DEFINES):
        node.decorator_list = []
    return node
