"""Patterns in RE2's meaning, run by the engine that Polars has where it can be told to mean the same.

Both engines take linear time. They differ in what `\\d`, `\\w`, `\\s` and `\\b` cover (RE2: ASCII), in character
classes (Rust's nest and intersect) and in a few escapes; a pattern is rewritten so that those do not matter, and one
that cannot be is matched by RE2 itself, distinct values once each.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import polars as pl
import re2

_CLASSES: Final = {
    "d": "[0-9]", "D": "[^0-9]", "w": "[0-9A-Za-z_]", "W": "[^0-9A-Za-z_]",
    "s": r"[\t\n\f\r ]", "S": r"[^\t\n\f\r ]",
}  # fmt: skip
_SAME: Final = frozenset("AzafnrtvpPx")  # escapes that mean the same to both, outside classes
_SAME_IN_CLASS: Final = frozenset("afnrtvpPx")
_SPECIAL: Final = frozenset(r".+*?()|[]{}^$\&~-#")


def full_match(column: pl.Expr, pattern: str) -> pl.Expr:
    """Return whether whole values match an RE2 pattern; null where the value is null."""
    rust = rust_pattern(pattern)
    if rust is not None:
        return column.str.contains(rust)
    return column.map_batches(_by_re2(pattern), return_dtype=pl.Boolean)


def rust_pattern(pattern: str) -> str | None:
    """Return the pattern as Rust's engine must be told it to match whole values as RE2 does; None where it cannot."""
    body = _translated(pattern)
    if body is None:
        return None
    rust = rf"\A(?:{body})\z"
    try:
        pl.Series([""]).str.contains(rust)
    except pl.exceptions.PolarsError:
        return None
    return rust


def _translated(pattern: str) -> str | None:
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "[":
            end, inside = _class(pattern, at)
            if inside is None:
                return None
            parts.append(inside)
            at = end
        elif char == "\\":
            escape = _escape(pattern[at + 1 : at + 2])
            if escape is None:
                return None
            parts.append(escape)
            at += 2
        else:
            parts.append(char)
            at += 1
    return "".join(parts)


def _escape(char: str) -> str | None:
    """Return an escape outside a class. `\\B`, `\\C`, `\\Q` and octal have no counterpart."""
    if char in _CLASSES:
        return _CLASSES[char]
    if char == "b":
        return r"(?-u:\b)"
    if char and char in _SAME:
        return "\\" + char
    if not char or char.isalnum():
        return None
    return "\\" + char if char in _SPECIAL else char


def _class(pattern: str, start: int) -> tuple[int, str | None]:
    """Return where the class that begins at `start` ends, and the class as Rust reads it."""
    at = start + 1
    parts = ["["]
    if pattern[at : at + 1] == "^":
        parts.append("^")
        at += 1
    first = True
    while at < len(pattern):
        char = pattern[at]
        if char == "]" and not first:
            return at + 1, "".join([*parts, "]"])
        first = False
        if char == "[" and (named := re.match(r"\[:\^?[a-z]+:\]", pattern[at:])):
            parts.append(named[0])
            at += len(named[0])
        elif char == "\\":
            following = pattern[at + 1 : at + 2]
            if following in _CLASSES:
                parts.append(_CLASSES[following])
            elif following in _SAME_IN_CLASS:
                parts.append("\\" + following)
            elif following and not following.isalnum():
                parts.append("\\" + following if following in _SPECIAL else following)
            else:
                return at, None
            at += 2
        elif pattern.startswith("--", at):
            return at, None  # a range that ends or begins with `-` to RE2, a difference to Rust
        else:
            parts.append("\\" + char if char in "[]&~" else char)
            at += 1
    return at, None


def _by_re2(pattern: str) -> Callable[[pl.Series], pl.Series]:
    compiled = re2.compile(pattern)

    def match(values: pl.Series) -> pl.Series:
        distinct = values.drop_nulls().unique()
        hits = pl.Series([compiled.fullmatch(value) is not None for value in distinct], dtype=pl.Boolean)
        return values.replace_strict(distinct, hits, default=None, return_dtype=pl.Boolean)

    return match
