"""The page `docs/reference/command-line.md`, written from the commands themselves.

`python -P -m taut.entrypoints.cli.reference` prints it; a test fails when the page is another.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import typer

from taut.entrypoints import errors
from taut.entrypoints.cli.app import build

_HEAD = """# The command line

`taut NOUN VERB`. This page is written from the commands themselves (`python -m taut.entrypoints.cli.reference`).

The command line works without `taut up`: it speaks to the platform's socket in its home, or, where none runs, takes the
home's lock and runs control in its own process. Results are the documents of the
control plane's API (`/openapi.json`); with `--json` exactly one
goes to standard output, and progress to standard error. Project code never runs inside control: `plan` and `apply`
evaluate it in the command's process to a manifest and a bundle.

Global options may stand before or after the noun.

| option | |
|---|---|
"""


def page() -> str:
    """Return the page as Markdown."""
    root: Any = typer.main.get_command(build())
    parts = [_HEAD, *_options(root), "\n## Exit codes\n\n| code | means |\n|---|---|\n", *_exit_codes()]
    parts.append("\nThe codes of errors are explained in [errors](errors.md).\n")
    for name, command in root.commands.items():
        parts += _section(f"taut {name}", command)
    return "".join(parts)


def _exit_codes() -> Iterator[str]:
    by_code: dict[int, list[str]] = {0: ["done"]}
    for code, answer in errors.TABLE.items():
        by_code.setdefault(answer.exit_code, []).append(f"`{code}`")
    by_code[errors.REJECTED] = ["a gate rejected"]
    by_code[errors.HELD] = ["a gate holds: a person must decide"]
    by_code[130] = ["interrupted"]
    for number in sorted(by_code):
        yield f"| {number} | {', '.join(by_code[number])} |\n"


def _section(path: str, command: Any) -> Iterator[str]:
    below = getattr(command, "commands", {})
    if not below or command.invoke_without_command:
        yield from _command(path, command)
    else:
        yield f"\n## {path}\n\n{_plain(command.help)}\n"
    for name, child in below.items():
        yield from _command(f"{path} {name}", child, level=3)


def _command(path: str, command: Any, *, level: int = 2) -> Iterator[str]:
    arguments = [item for item in command.params if item.param_type_name == "argument"]
    words = " ".join(f"{_named(item)}" if item.required else f"[{_named(item)}]" for item in arguments)
    yield f"\n{'#' * level} {path} {words}".rstrip() + "\n\n"
    yield f"{_plain(command.help)}\n"
    told = [*(f"| `{_named(item)}` | {item.help} |\n" for item in arguments if item.help), *_options(command)]
    if told:
        yield "\n| | |\n|---|---|\n"
        yield from told


def _named(item: Any) -> str:
    return str(item.metavar or item.name).upper()


def _options(command: Any) -> Iterator[str]:
    for item in command.params:
        if item.param_type_name != "option" or item.name == "help":
            continue
        names = ", ".join(f"`{name}`" for name in item.opts)
        default = item.default
        shown = (
            f" Default: `{default}`."
            if default not in (None, False, "", ()) and not callable(default)
            else ""
        )
        environ = f" Also `{item.envvar}` in the environment." if item.envvar else ""
        yield f"| {names} | {(item.help or '').strip()}{' Required.' if item.required else ''}{shown}{environ} |\n"


def _plain(text: str | None) -> str:
    said = (text or "").replace("\b", "").strip()
    return re.sub(r"For example: (.+)", r"For example: `\1`", said)


if __name__ == "__main__":
    sys.stdout.write(page())
