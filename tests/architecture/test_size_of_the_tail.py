"""The tail stays short: the longest file, function and parameter list are bounded, the median takes care of itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src/taut"
FILE_LINES, FUNCTION_LINES, PARAMETERS, METHODS = 450, 80, 12, 30


def files() -> list[Path]:
    return sorted(path for path in SRC.rglob("*.py") if "migrations" not in path.parts)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def faults(source: str, name: str) -> list[str]:
    tree, found = ast.parse(source), []
    if source.count("\n") > FILE_LINES:
        found.append(f"{name} has {source.count(chr(10))} lines, more than {FILE_LINES}: split it")
    for function in functions(tree):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        arguments = function.args
        count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
        if lines > FUNCTION_LINES:
            found.append(f"{name}:{function.lineno} {function.name} has {lines} lines")
        if count > PARAMETERS and function.name not in {"__init__", "model"}:
            found.append(f"{name}:{function.lineno} {function.name} has {count} parameters")
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            methods = sum(isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) for item in node.body)
            if methods > METHODS:
                found.append(f"{name}:{node.lineno} {node.name} has {methods} methods")
    return found


def test_no_file_function_or_class_outgrows_its_bound() -> None:
    found = [fault for path in files() for fault in faults(path.read_text(), str(path.relative_to(SRC)))]

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "planted",
    [
        "x = 1\n" * (FILE_LINES + 1),
        "def long():\n" + "    pass\n" * FUNCTION_LINES,
        f"def wide({', '.join(f'p{i}' for i in range(PARAMETERS + 1))}): ...",
        "class Wide:\n" + "".join(f"    def m{i}(self): ...\n" for i in range(METHODS + 1)),
    ],
)
def test_each_bound_finds_a_planted_fault(planted: str) -> None:
    assert faults(planted, "planted.py")


def test_no_error_is_swallowed_in_silence() -> None:
    found = []
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                broad = node.type is None or (
                    isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}
                )
                if broad and all(isinstance(item, ast.Pass | ast.Continue) for item in node.body):
                    found.append(f"{path.relative_to(SRC)}:{node.lineno}")

    assert not found
