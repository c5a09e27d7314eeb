"""Commands on drills."""

from __future__ import annotations

from typing import Annotated

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import session


def register(app: typer.Typer) -> None:
    verbs: Verbs = {"list": drills, "run": run, "show": show}
    add_noun(app, "drill", "Faults planted on purpose, to see whether they are noticed.", verbs)


def drills(context: typer.Context) -> None:
    """List what the project declares, and how each drill ended last."""
    from taut.entrypoints.incidents_view import drills as shown

    session(context).act("drill.list", {}, shown)


def run(
    context: typer.Context,
    drill: Annotated[str, typer.Argument(help="A drill that the project declares.")],
    load: Annotated[bool, typer.Option(help="Send the requests that the drill needs.")] = True,
) -> None:
    """Plant a declared fault in a release, send requests, and see whether the alarm, the page and the rollback come.

    For example: taut drill run late-fails

    Exit code 10 where one did not come in time; the first broken link is named. The fault goes when the drill ends, however
    it does. Refused in production unless the drill says that it may.
    """
    import sys
    import time

    from taut.entrypoints.incidents_view import drilled
    from taut.entrypoints.loading import Plan, run_load
    from taut.entrypoints.render import watching

    here = session(context)
    begun = here.ask("drill.start", {"drill": drill})
    plan = Plan(endpoint=begun["endpoint"], rate=begun["rate"], duration="2s")
    while True:
        told = here.ask("drill.show", {"story": begun["story"]})
        if told["state"] not in ("running", "waiting"):
            break
        if load:
            with watching(sys.stderr) as progress:
                run_load(here.home, plan, progress, url=here.url, token=here.token, tls=here.tls)
        else:
            time.sleep(1.0)
    here.finish({**(told["result"] or {"verdict": "reject", "drill": drill}), **told}, drilled)


def show(
    context: typer.Context, story: Annotated[str, typer.Argument(help="As `taut drill run` names it.")]
) -> None:
    """Show how a drill stands, or how it ended."""
    from taut.entrypoints.incidents_view import drill_story

    session(context).act("drill.show", {"story": story}, drill_story)
