"""Global options may stand anywhere: they are moved before the noun, where the parser wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_WITH_VALUE: Final = (
    "--home", "--url", "--token", "--break-glass", "--tls-ca", "--client-cert", "--client-key",
)  # fmt: skip
_FLAGS: Final = ("--json", "--debug")


def hoist(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the global options first. What follows `--` is left alone."""
    globals_: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += ["--", *words]
        elif word in _FLAGS or (word.partition("=")[0] in _WITH_VALUE and "=" in word):
            globals_.append(word)
        elif word in _WITH_VALUE:
            globals_ += [word, *[value for value in [next(words, None)] if value is not None]]
        else:
            rest.append(word)
    return globals_ + rest


def noun_of(hoisted: Sequence[str]) -> str:
    """Return the first word after the global options of `hoist`, empty where it is an option or there is none."""
    words = iter(hoisted)
    for word in words:
        if word in _WITH_VALUE:
            next(words, None)
        elif word not in _FLAGS and word.partition("=")[0] not in _WITH_VALUE:
            return "" if word.startswith("-") else word
    return ""
