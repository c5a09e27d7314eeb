"""Commands that move traffic: release, rollback."""

from __future__ import annotations

from typing import Annotated

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import session

Release = Annotated[str, typer.Argument(help="The id of a release that is under way, or its endpoint.")]
Reason = Annotated[str, typer.Option(help="Why, for the history.")]


def register(app: typer.Typer) -> None:
    verbs: Verbs = {
        "start": start, "status": status, "pause": pause, "resume": resume, "promote": promote, "abort": abort,
        "history": history, "live": live,
    }  # fmt: skip
    add_noun(app, "release", "Which version answers, and how it came there.", verbs)
    app.command("rollback")(rollback)


def start(
    context: typer.Context,
    endpoint: str,
    version: Annotated[
        list[str], typer.Argument(help="model@number, or the bare number; of an experiment several.")
    ],
    strategy: Annotated[
        str | None,
        typer.Option(
            help="direct, canary, blue-green, shadow, ab or bandit; without it, what the project declares."
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the history.")] = "",
    despite: Annotated[
        str, typer.Option(metavar="REASON", help="Why now, although releases are frozen; recorded for ever.")
    ] = "",
) -> None:
    """Release a version.

    For example: taut release start delay delay@2 --reason 'better in winter'
    """
    from taut.entrypoints import views

    request = {
        "endpoint": endpoint, "version": version[0], "others": version[1:], "strategy": strategy, "reason": reason, "despite": despite,
    }  # fmt: skip
    session(context).act("release.start", request, views.release)


def status(
    context: typer.Context, endpoint: Annotated[str, typer.Argument(help="An endpoint, or a release's id.")]
) -> None:
    """Show the release under way, or the live one."""
    from taut.entrypoints import views

    session(context).show_only("release.status", {"endpoint": endpoint}, views.release)


def pause(context: typer.Context, release: Release, reason: Reason = "") -> None:
    """Let a canary grow no further, or weights of an experiment stay, until it is resumed; it is judged all the same."""
    from taut.entrypoints import views

    session(context).act("release.pause", {"release": release, "reason": reason}, views.release)


def resume(context: typer.Context, release: Release, reason: Reason = "") -> None:
    """Let a release go on that is paused or held; what holds a canary now can still end it."""
    from taut.entrypoints import views

    session(context).act("release.resume", {"release": release, "reason": reason}, views.release)


def promote(
    context: typer.Context,
    release: Release,
    version: Annotated[str, typer.Argument(help="Of an experiment, the version that takes over.")] = "",
    reason: Reason = "",
) -> None:
    """Let a canary or a version of an experiment take over at once, or switch to what lies ready."""
    from taut.entrypoints import views

    request = {"release": release, "version": version, "reason": reason}
    session(context).act("release.promote", request, views.release)


def abort(
    context: typer.Context,
    release: Release,
    reason: Reason = "",
) -> None:
    """End a release that is under way; what was live stays live."""
    from taut.entrypoints import views

    session(context).show_only("release.abort", {"release": release, "reason": reason}, views.release)


def history(context: typer.Context, endpoint: str, limit: int = 50) -> None:
    """List an endpoint's releases, the newest first."""
    from taut.entrypoints import views

    session(context).act("release.history", {"endpoint": endpoint, "limit": limit}, views.releases)


def live(context: typer.Context) -> None:
    """Show what answers now."""
    from taut.entrypoints import views

    view = views.listed("live", ("endpoint", "version", "release"), empty="nothing is released yet")
    session(context).act("release.live", {}, view)


def rollback(
    context: typer.Context,
    endpoint: str,
    to: Annotated[str | None, typer.Option(help="An earlier release; without it, the one before.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for the history.")] = "",
) -> None:
    """Return an endpoint to an earlier release.

    For example: taut rollback delay
    """
    from taut.entrypoints import views

    request = {"endpoint": endpoint, "to": to, "reason": reason}
    session(context).act("release.rollback", request, views.release)
