"""The outermost edge of the command line: every way to end becomes an exit code and, if need be, one clear message."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import typer

_INTERRUPTED: Final = 130
_USAGE: Final = 2


def guarded(words: Sequence[str], *, json: bool, debug: bool) -> int:
    """Parse and run; see `run`."""
    from taut.entrypoints.cli.app import build
    from taut.entrypoints.cli.arguments import noun_of

    command = typer.main.get_command(build(noun_of(words)))
    try:
        ended = command.main(args=list(words), prog_name="taut", standalone_mode=False)
    except typer.Exit as end:
        return int(end.exit_code)
    except (KeyboardInterrupt, typer.Abort) as end:
        if isinstance(end.__cause__, EOFError):  # no person's: a prompt's has no cause
            return _report(end.__cause__, json=json)
        sys.stderr.write("interrupted: what was acknowledged is kept\n")
        return _INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone; nobody is left to tell
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the edge of the process: each becomes a message and an exit code
        if debug:
            import traceback

            traceback.print_exc()
        return _report(error, json=json)
    return ended if isinstance(ended, int) else 0


def _report(error: Exception, *, json: bool) -> int:
    from taut.core.errors import Corrupt, TautError, Unavailable
    from taut.core.room import is_full
    from taut.entrypoints import errors

    if (
        type(error).__name__ == "NoArgsIsHelpError"
    ):  # a noun alone: what it offers, and the code of a wrong usage
        sys.stderr.write(error.format_message() + "\n")  # type: ignore[attr-defined]  # a ClickException has it
        return _USAGE
    if _is_usage(error):
        return _say("invalid_input", error.format_message(), _USAGE, json=json, hint=_usage_hint(error))  # type: ignore[attr-defined]  # a ClickException has it
    if is_full(error) and not isinstance(error, TautError):
        error = Unavailable(f"there is no room left on the disk ({error}): free some space and try again")
    if isinstance(error, EOFError) and "marshal" in str(error):
        # Python before 3.12.8 writes bytecode without looking whether all of it was written.
        error = Corrupt(
            f"the bytecode of a module was cut, as a disk that is full does ({error}): remove the __pycache__ folders "
            f"below {sys.prefix} and beside taut's own code, and run it again"
        )
    if isinstance(error, TautError):
        return _say(error.code, error.message, errors.exit_code_of(error), json=json)
    message = (
        f"taut failed: {type(error).__name__}: {error}: run it again with --debug and report what it prints"
    )
    return _say(errors.INTERNAL, message, errors.TABLE[errors.INTERNAL].exit_code, json=json)


def _is_usage(error: Exception) -> bool:
    return any(kind.__name__ == "ClickException" for kind in type(error).__mro__)


def _usage_hint(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return "" if context is None else f"see `{context.command_path} --help`"


def _say(code: str, message: str, exit_code: int, *, json: bool, hint: str = "") -> int:
    if json:
        import msgspec

        document = {"error": {"code": code, "message": message, "request_id": ""}}
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    else:
        sys.stderr.write(f"{code}: {message}\n" + (f"{hint}\n" if hint else ""))
    return exit_code
