"""Collecting what a project file declares while it loads; at any other time a declaration is a plain value."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final

import msgspec

from taut.core.errors import InvalidInput

_PACKAGE: Final = str(Path(__file__).parents[1])


class Place(msgspec.Struct, frozen=True):
    """Where in the builder's code something was declared."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{Path(self.file).name}, line {self.line}"

    @property
    def folder(self) -> Path:
        """The folder of the file, or the working folder where there is no file (a notebook)."""
        path = Path(self.file)
        return path.parent if path.is_file() else Path.cwd()


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the project declares: its kind, its name and the object itself."""

    kind: str
    name: str
    thing: object
    place: Place


class Collection:
    """Declarations in the order in which they were made. Two of one kind and name are refused at once."""

    def __init__(self) -> None:
        self.declarations: list[Declaration] = []

    def add(self, declaration: Declaration) -> None:
        for other in self.declarations:
            if (other.kind, other.name) == (declaration.kind, declaration.name):
                raise InvalidInput(
                    f"{declaration.kind} {declaration.name!r} is declared twice, first in {other.place}: "
                    "rename or remove one"
                )
        self.declarations.append(declaration)

    def of(self, kind: str) -> list[Declaration]:
        return [declaration for declaration in self.declarations if declaration.kind == kind]


_collection: ContextVar[Collection | None] = ContextVar("taut_project_collection", default=None)


@contextmanager
def collecting() -> Iterator[Collection]:
    """Collect every declaration made inside the block, in this context only."""
    collection = Collection()
    token = _collection.set(collection)
    try:
        yield collection
    finally:
        _collection.reset(token)


def declare(kind: str, name: str, thing: object) -> Place:
    """Note a declaration if a project is loading; always return where it was made."""
    place = caller()
    collection = _collection.get()
    if collection is not None:
        collection.add(Declaration(kind=kind, name=name, thing=thing, place=place))
    return place


def caller() -> Place:
    """Return the place of the innermost frame outside taut."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno)
