"""Commands on the project itself: init, plan, apply, revert."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taut.entrypoints.cli.session import Session, session

if TYPE_CHECKING:
    from taut.project.load import LoadedProject

File = Annotated[
    Path | None, typer.Option("--project", help="The project file; without it, taut.py or project.py here.")
]
Environment = Annotated[
    str | None, typer.Option(help="development, staging or production, over what the project says.")
]
Removal = Annotated[bool, typer.Option("--allow-removal", help="Also remove endpoints that carry traffic.")]


def register(app: typer.Typer) -> None:
    app.command("init")(init)
    app.command("apply")(apply)
    plan_ = typer.Typer(
        name="plan", help="What a project file would change, judged by the plan gate.", rich_markup_mode=None,
        invoke_without_command=True,
    )  # fmt: skip
    plan_.callback()(plan)
    for verb, function in (("history", history), ("show", current), ("revert", revert)):
        plan_.command(verb)(function)
    app.add_typer(plan_)


def init(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is empty or not there yet.")],
) -> None:
    """Write a small working project with its own sample data.

    For example: taut init shop
    """
    from taut.entrypoints.templates import write_project

    here = session(context)
    files = write_project(folder)
    result = {"project": str(folder), "files": files}

    def view(_result: dict[str, Any]) -> None:
        typer.echo(
            f"wrote {len(files)} files to {folder}. What comes next stands in {folder / 'README.md'}; begin with:"
        )
        typer.echo(f"  cd {folder}\n  taut apply")

    here.show(result, view)


def plan(
    context: typer.Context,
    project: File = None,
    environment: Environment = None,
    allow_removal: Removal = False,
) -> None:
    """What a project file would change, judged by the plan gate. Changes nothing."""
    if context.invoked_subcommand is not None:
        return
    from taut.entrypoints import plan_view

    session(context).act("plan.show", request_of(project, environment, allow_removal), plan_view.plan)


def apply(
    context: typer.Context,
    project: File = None,
    environment: Environment = None,
    allow_removal: Removal = False,
) -> None:
    """Make a project file the project, if the plan gate admits it.

    For example: taut apply --project project.py
    """
    from taut.entrypoints import plan_view

    session(context).act("plan.apply", request_of(project, environment, allow_removal), plan_view.applied)


def apply_first(here: Session, file: Path) -> None:
    """Apply a project file on the way to something else; ends the command when the gate does not admit it."""
    from taut.entrypoints import plan_view
    from taut.entrypoints.errors import exit_code_of_result

    result = here.ask("plan.apply", request_of(file))
    if code := exit_code_of_result(result):
        here.show(result, plan_view.applied)
        raise typer.Exit(code)


def history(context: typer.Context, limit: int = 50) -> None:
    """List applied plans, the newest first."""
    from taut.entrypoints import plan_view

    session(context).act("plan.history", {"limit": limit}, plan_view.plans)


def current(context: typer.Context) -> None:
    """Show the manifest that holds now."""
    from taut.entrypoints import views

    session(context).act("plan.current", {}, views.document)


def revert(
    context: typer.Context,
    to: Annotated[str, typer.Argument(help="A plan's number or id.")],
    allow_removal: Removal = False,
) -> None:
    """Return to an earlier plan, code and all, through the same gate.

    For example: taut plan revert 3
    """
    from taut.entrypoints import plan_view

    session(context).act("plan.revert", {"to": to, "allow_removal": allow_removal}, plan_view.applied)


def request_of(
    file: Path | None, environment: str | None = None, allow_removal: bool = False
) -> dict[str, Any]:
    """Load the project in this process: its code never runs inside control."""
    import msgspec

    loaded = load_here(file, environment)
    return {
        "manifest": msgspec.to_builtins(loaded.manifest),
        "bundle": msgspec.to_builtins(loaded.bundle),
        "allow_removal": allow_removal,
    }


def load_here(file: Path | None, environment: str | None = None) -> LoadedProject:
    """Load the project of this folder, or the one that is named."""
    from taut.core.errors import InvalidInput
    from taut.project.load import find_project_file, load_project
    from taut.project.words import nearest

    stages = ("development", "staging", "production")
    if environment is not None and environment not in stages:
        raise InvalidInput(f"--environment {environment!r}{nearest(environment, stages)}")
    return load_project(file or find_project_file(Path.cwd()), environment=environment)
