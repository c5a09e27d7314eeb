"""Showing things: tables and trees for people, plain columns where nobody watches, progress on standard error."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TextIO

Progress = Callable[[str, float | None], None]


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str = "nothing") -> None:
    """Print rows under headings; `empty` where there are none."""
    texts = [[text(cell) for cell in row] for row in rows]
    if not texts:
        _line(empty)
    elif sys.stdout.isatty():
        _rich_table(columns, texts)
    else:
        widths = [max(len(row[at]) for row in [list(columns), *texts]) for at in range(len(columns))]
        for row in [[column.upper() for column in columns], *texts]:
            _line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


_NAME: Final = re.compile(r"[a-z]+_[0-9a-z]{20,}(\.\d+)?|[^\s@]+@\d+")
"""What people copy into the next command: never broken or cut, however narrow the terminal is."""


def _rich_table(columns: Sequence[str], texts: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for at, name in enumerate(columns):
        cells = [_printable(row[at]) for row in texts]
        if all(_NAME.fullmatch(cell) or cell == "-" for cell in cells):
            shown.add_column(name, no_wrap=True, min_width=max(map(len, cells)))
        else:
            shown.add_column(name, overflow="fold")
    for row in texts:
        shown.add_row(*(Text(_printable(cell)) for cell in row))
    Console().print(shown)


def second(time: str) -> str:
    """A moment as people read it: to the second, UTC."""
    from datetime import UTC, datetime

    return datetime.fromisoformat(time).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def page(markdown: str) -> None:
    """Print a page of Markdown: set for people on a terminal, as it is elsewhere."""
    if not sys.stdout.isatty():
        _line(markdown)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(_printable(markdown)))


def fields(values: dict[str, Any]) -> None:
    """Print names and values, one a line, nested ones indented; a time that is there in words is not also counted."""
    twins = {name for name in values if name.endswith("_us") and f"{name.removesuffix('_us')}_at" in values}
    values = {name: value for name, value in values.items() if name not in twins}
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        if isinstance(value, dict) and value:
            _line(f"{name.replace('_', ' ')}:")
            for key, item in value.items():
                _line(f"  {key}: {text(item)}")
        else:
            _line(f"{name.replace('_', ' ').ljust(width)}  {text(value)}")


def tree(label: Callable[[Any], str], children: Callable[[Any], Sequence[Any]], root: Any) -> None:
    """Print a tree from its root down. label: node -> its line, asked in the order of the lines."""
    _line(label(root))
    _branches(label, children, root, "")


def _branches(
    label: Callable[[Any], str], children: Callable[[Any], Sequence[Any]], node: Any, indent: str
) -> None:
    below = children(node)
    for at, child in enumerate(below):
        last = at == len(below) - 1
        _line(f"{indent}{'└─ ' if last else '├─ '}{label(child)}")
        _branches(label, children, child, indent + ("   " if last else "│  "))


def text(value: object) -> str:
    """One value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(text(item) for item in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{key}={text(item)}" for key, item in value.items()) or "-"
    return str(value)


def line(said: str) -> None:
    """Print one line on standard output."""
    _line(said)


def _line(said: str) -> None:
    sys.stdout.write(_printable(said) + "\n")


def _printable(said: str) -> str:
    """Escape control characters: what is shown may come from data, and must not drive the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else f"\\x{ord(char):02x}" for char in said)


@contextmanager
def watching(stream: TextIO) -> Iterator[Progress]:
    """Yield a callback for progress: a bar on a terminal, otherwise a line whenever the message changes."""
    if stream.isatty():
        with _bar(stream) as progress:
            yield progress
        return
    said = ""

    def tell(message: str, _fraction: float | None) -> None:
        nonlocal said
        if message != said:
            said = message
            stream.write(_printable(message) + "\n")
            stream.flush()

    yield tell


@contextmanager
def _bar(stream: TextIO) -> Iterator[Progress]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(file=stream), transient=True) as bars:
        task = bars.add_task("working", total=None)

        def tell(message: str, fraction: float | None) -> None:
            total = None if fraction is None else 1.0
            bars.update(task, description=escape(_printable(message)), total=total, completed=fraction or 0.0)

        yield tell
