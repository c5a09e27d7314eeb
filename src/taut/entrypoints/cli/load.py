"""The command that drives an endpoint: load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from taut.entrypoints.cli.session import session


def register(app: typer.Typer) -> None:
    app.command("load")(load)


def load(
    context: typer.Context,
    endpoint: str,
    rate: Annotated[float, typer.Option(help="Requests a second.")] = 100.0,
    duration: Annotated[str, typer.Option(help="How long, such as 30s.")] = "10s",
    ramp: Annotated[str, typer.Option(help="Of it, how long the rate rises from nothing.")] = "0s",
    profile: Annotated[
        Path | None, typer.Option(help="Stages instead, as YAML: [{rate: 100, duration: 30s}, …].")
    ] = None,
    constant: Annotated[bool, typer.Option("--constant", help="Even arrivals instead of Poisson's.")] = False,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Instances: JSON, @FILE, or -; without, made up.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Instances a request.", min=1)] = 1,
    replay: Annotated[bool, typer.Option("--replay", help="What the endpoint was asked before.")] = False,
    speed: Annotated[float, typer.Option(help="Of a replay: so many times as fast as it came.")] = 1.0,
    connections: Annotated[int, typer.Option(help="Requests on their way at once, at most.")] = 512,
) -> None:
    """Drive an endpoint by a schedule, whatever it answers, and report latencies from when requests were due.

    For example: taut load delay --rate 500 --duration 30s --ramp 5s

    The platform must run (`taut up`). A request that a stalled server kept from being sent counts from its due time,
    so that no stall hides; the report also says whether the generator itself kept up.
    """
    import sys

    from taut.entrypoints import load_view
    from taut.entrypoints.inputs import instances, read_json
    from taut.entrypoints.loading import Plan, run_load
    from taut.entrypoints.render import watching

    here = session(context)
    given: list[dict[str, Any]] | None = None if data is None else instances(read_json(data))
    plan = Plan(
        endpoint=endpoint, rate=rate, duration=duration, ramp=ramp, profile=profile,
        arrivals="constant" if constant else "poisson", instances=given, rows=rows, replay=replay, speed=speed,
        connections=connections,
    )  # fmt: skip
    with watching(sys.stderr) as progress:
        result = run_load(here.home, plan, progress, url=here.url, token=here.token, tls=here.tls)
    here.show(result, load_view.load)
