"""Shows the demo's steps one after the other: claim, figures, seconds; a claim that does not hold fails it."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import msgspec

from taut.core.errors import Conflict, TautError
from taut.entrypoints.demo.stage import ClaimFailed, Stage
from taut.entrypoints.demo.steps import STEPS

_MARK = "this folder was made by taut demo and is made anew by the next one\n"


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the demo, as `taut demo --json` reports it."""

    name: str
    ok: bool
    claim: str
    figures: dict[str, Any]
    seconds: float


def show(folder: Path, *, port: int, stay: bool, as_json: bool) -> bool:
    """Tell the story in `folder`, made anew, and return whether every claim held.

    stay: keep serving until Ctrl-C after the last step. as_json: one document on standard output at the end.
    """
    _make_anew(folder)
    results: list[StepResult] = []
    with Stage(folder, port=port) as stage:
        for number, (name, step) in enumerate(STEPS, 1):
            result = _perform(stage, name, step, f"{number}/{len(STEPS)}")
            results.append(result)
            if not result.ok:
                break
        ok = len(results) == len(STEPS) and all(result.ok for result in results)
        if as_json:
            document = {"ok": ok, "steps": results}
            sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
            sys.stdout.flush()
        if ok and stay:
            _serve_on(stage)
    return ok


def _perform(stage: Stage, name: str, step: Any, place: str) -> StepResult:
    sys.stderr.write(f"\n[{place}] {name}\n")
    sys.stderr.flush()
    began = time.monotonic()
    try:
        claim, figures = step(stage)
        ok = True
    except ClaimFailed as failed:
        claim, figures, ok = f"does NOT hold: {failed}", {}, False
    except TautError as error:
        claim, figures, ok = f"failed: {error.code}: {error.message}", {}, False
    seconds = round(time.monotonic() - began, 2)
    said = f"{'✓' if ok else '✗'} {claim}  ({seconds:.1f} s)"
    sys.stderr.write(textwrap.fill(said, _width(), initial_indent="  ", subsequent_indent="    ") + "\n")
    sys.stderr.write(_figures(figures))
    sys.stderr.flush()
    return StepResult(name=name, ok=ok, claim=claim, figures=figures, seconds=seconds)


def _figures(figures: dict[str, Any]) -> str:
    """Names and values side by side, long values folded below themselves."""
    column = max([34, *(len(key) for key in figures)]) + 1
    indent = " " * (6 + column)
    return "".join(
        textwrap.fill(
            _said(value), _width(), initial_indent=f"      {key:<{column}}", subsequent_indent=indent,
            break_long_words=False, break_on_hyphens=False,
        ) + "\n"
        for key, value in figures.items()
    )  # fmt: skip


def _width() -> int:
    return max(80, shutil.get_terminal_size((100, 24)).columns)


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _make_anew(folder: Path) -> None:
    """Empty the demo's own folder. Raises Conflict for a folder with anything else in it."""
    mark = folder / ".made-by-taut-demo"
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise Conflict(f"{folder} holds something that is not the demo's: name another with --folder")
    if folder.exists():
        _end_former(folder)
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    mark.write_text(_MARK)


def _end_former(folder: Path) -> None:
    """An earlier demo that was killed may still serve from here; nobody may serve from a folder that is gone."""
    from taut.entrypoints.client import home_lock

    try:
        with home_lock(folder / "home"):
            pass
    except Conflict as error:
        raise Conflict(
            f"an earlier demo still runs in {folder} ({error.message.partition(' works in ')[0]}): stop it with Ctrl-C in "
            "its terminal or `kill`, or name another folder with --folder and another port with --port"
        ) from error


def _serve_on(stage: Stage) -> None:
    taut = f"{_command()} --home {_short(stage.home)}"
    sys.stderr.write(
        f"\nThe platform serves on at {stage.data_url}, control at {stage.control_url}. Try, in another terminal, from "
        f"this folder:\n\n  {taut} status\n"
        f"  {taut} why {stage.request_id}\n"
        f"  {taut} predict delay --data '{stage.example}'\n\nCtrl-C stops it.\n"
    )
    sys.stderr.flush()
    stage.wait()


def _command() -> str:
    """`taut` as it can be typed in this folder: `make run` puts it into .venv/bin, which is on nobody's path."""
    own = Path(sys.executable).with_name("taut")
    on_path = shutil.which("taut")
    return "taut" if on_path and Path(on_path).resolve() == own.resolve() else str(_short(own))


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
