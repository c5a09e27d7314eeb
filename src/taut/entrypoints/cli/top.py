"""`taut top`: what the gateways do right now."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from taut.entrypoints.cli.session import Session, session

if TYPE_CHECKING:
    from taut.entrypoints.client import Client
    from taut.entrypoints.traffic import Traffic, Watcher

_PATIENCE_S: Final = 5.0
_LOOK_S: Final = 0.25


def top(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="One picture, then end; so also with --json.")] = False,
    interval: Annotated[
        float, typer.Option(help="Seconds that a picture covers.", min=1.0, max=3600.0)
    ] = 2.0,
) -> None:
    """Watch the endpoints: requests, latency, errors, queues, workers.

    For example: taut top --interval 5

    Figures are of the last interval, by gateway and over all. A gateway tells them about once a second.
    """
    from taut.entrypoints import top_view
    from taut.entrypoints.operations.operation import to_json
    from taut.entrypoints.traffic import Watcher

    here = session(context)
    watcher = Watcher()
    if once or here.json or not sys.stdout.isatty():
        with _reach(here) as client:
            traffic = _whole(client, watcher, interval)
        if here.json:
            here.show(to_json(traffic), lambda _: None)
        else:
            top_view.once(traffic)
        return
    with _reach(here) as client:  # what is wrong at once is an error; what goes wrong later is shown
        _look(client, watcher)
    top_view.live(lambda: _next(here, watcher, interval))


def _reach(here: Session) -> Client:
    """Connect to a platform that runs. Raises Unavailable where none does."""
    from taut.core.errors import Unavailable
    from taut.entrypoints.absent import absent_control
    from taut.entrypoints.client import SOCKET, answers

    if here.url is None and not answers(here.home / SOCKET):
        raise Unavailable(
            absent_control(here.home) or f"no platform runs in {here.home}: start it with `taut up`"
        )
    return here.connect()


def _look(client: Client, watcher: Watcher) -> Traffic:
    from taut.entrypoints.traffic import samples_of

    return watcher.take(samples_of(client.call("status.traffic")))


def _whole(client: Client, watcher: Watcher, interval: float) -> Traffic:
    """Return what happened over an interval; a gateway that says nothing is waited for a little longer."""
    _look(client, watcher)
    time.sleep(interval)
    until_s = time.monotonic() + _PATIENCE_S
    while not (traffic := _look(client, watcher)).whole and time.monotonic() < until_s:
        time.sleep(_LOOK_S)
    return traffic


def _next(here: Session, watcher: Watcher, interval: float) -> tuple[Traffic | None, str]:
    from taut.core.errors import TautError

    time.sleep(interval)
    try:
        with _reach(here) as client:
            return _look(client, watcher), ""
    except TautError as error:
        return None, f"{error.message} (gateways serve on without control)"
