"""Saying in words what is wrong with an argument, with the nearest valid word beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from taut.core.errors import InvalidInput
from taut.core.refs import check_name
from taut.core.units import parse_duration, parse_size
from taut.core.words import nearest as nearest

P = ParamSpec("P")
R = TypeVar("R")


def worded(what: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a call with a misspelt, missing or superfluous argument raise InvalidInput that names the right one."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except TypeError as error:
                misuse = _misuse(function, what, args, kwargs)
                if misuse is None:
                    raise
                raise InvalidInput(misuse) from error

        return call

    return decorate


def _misuse(
    function: Callable[..., Any], what: str, args: Sequence[Any], kwargs: dict[str, Any]
) -> str | None:
    import inspect

    signature = inspect.signature(function)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        words = [name for name in signature.parameters if name != "self"]
        unknown = [word for word in kwargs if word not in words]
        if unknown:
            return f"{what} has no argument {unknown[0]!r}{nearest(unknown[0], words)}"
        return f"{what}: {error}: it takes {', '.join(words)}"
    return None


def name(value: object, what: str) -> str:
    """Check a name that will be part of paths, URLs and policies."""
    return check_name(text(value, what), what=what)


def text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{what} is {_show(value)}: write a text")
    return value


def optional_text(value: object, what: str) -> str | None:
    return None if value is None else text(value, what)


def texts(value: object, what: str) -> tuple[str, ...]:
    """Check one text or a sequence of distinct ones."""
    items = (value,) if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) and item for item in items):
        raise InvalidInput(f"{what} is {_show(value)}: write a text or a list of texts")
    twice = {item for item in items if items.count(item) > 1}
    if twice:
        raise InvalidInput(f"{what} names {', '.join(sorted(twice))} more than once: name each once")
    return tuple(items)


def one_of(value: object, words: Sequence[str], what: str) -> str:
    if not isinstance(value, str) or value not in words:
        raise InvalidInput(f"{what} is {_show(value)}{nearest(str(value), words)}")
    return str(value)


def number(value: object, what: str, *, low: float, high: float) -> float:
    """Check a number within [low, high]; booleans and NaN are none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidInput(f"{what} is {_show(value)}: write a number from {low:g} to {high:g}")
    return value


def optional_number(value: object, what: str, *, low: float, high: float) -> float | None:
    return None if value is None else number(value, what, low=low, high=high)


def whole(value: object, what: str, *, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidInput(f"{what} is {_show(value)}: write a whole number from {low} to {high}")
    return value


def optional_flag(value: object, what: str) -> bool | None:
    """Check True, False or None; 0 and 1 are none of them."""
    if value is None or isinstance(value, bool):
        return value
    raise InvalidInput(f"{what} is {_show(value)}: write True, False or None")


def duration(value: object, what: str) -> str:
    """Check a duration such as `30d`, kept as written."""
    try:
        parse_duration(text(value, what))
    except InvalidInput as error:
        raise InvalidInput(f"{what}: {error}") from error
    return str(value)


def optional_duration(value: object, what: str) -> str | None:
    return None if value is None else duration(value, what)


def size(value: object, what: str) -> str:
    """Check a size such as `4GiB`, kept as written."""
    try:
        parse_size(text(value, what))
    except InvalidInput as error:
        raise InvalidInput(f"{what}: {error}") from error
    return str(value)


def instances(value: object, kinds: type | tuple[type, ...], what: str, hint: str) -> tuple[Any, ...]:
    """Check a list of things of one kind; a single one stands for a list of one."""
    items = value if isinstance(value, list | tuple) else (value,)
    for item in items:
        if not isinstance(item, kinds):
            raise InvalidInput(f"{what} holds {_show(item)}: {hint}")
    return tuple(items)


def _show(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
