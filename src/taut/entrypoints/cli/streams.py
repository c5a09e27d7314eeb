"""Commands of stream serving: a topic scored to a topic."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import Json, Session, session

if TYPE_CHECKING:
    from taut.bootstrap.config import Config
    from taut.serving.stream import Counts, StreamPlan

_SOURCE = typer.Option(
    "--from", help="URL/TOPIC such as redis://127.0.0.1:6379/0/orders, or a topic of the configured bus."
)
_TARGET = typer.Option("--to", help="Topic of the answers, on the same broker.")
_DEAD = typer.Option("--dead-letter", help="Topic of what cannot be answered; without it, TOPIC-dead.")
_GROUP = typer.Option("--group", help="Whose offset it is; without it, taut-ENDPOINT.")


def register(app: typer.Typer) -> None:
    verbs: Verbs = {"run": run, "status": status, "dead-letters": dead_letters, "replay": replay}
    add_noun(app, "stream", "Events scored from a topic to a topic, each once in effect.", verbs)


def run(
    context: typer.Context,
    endpoint: str,
    source: Annotated[str, _SOURCE],
    target: Annotated[str, _TARGET],
    dead_letter: Annotated[str, _DEAD] = "",
    group: Annotated[str, _GROUP] = "",
    in_flight: Annotated[int, typer.Option(help="Events under way at once.", min=5, max=100_000)] = 1280,
    until_empty: Annotated[bool, typer.Option("--until-empty", help="End when nothing waits.")] = False,
) -> None:
    """Score a topic until Ctrl-C.

    For example: taut stream run delay --from redis://127.0.0.1:6379/0/flights --to delays

    Start it more than once with one group to share the work. It asks the endpoint with --token, or as the service
    `stream` where whoever starts it may run streams.
    """
    here = session(context)
    url, plan = _plan(endpoint, source, target, dead_letter, group, max_in_flight=in_flight)
    counts = _work(here, url, plan, until_empty=until_empty)
    here.show(_told(plan, counts), _show_counts)


def status(
    context: typer.Context,
    endpoint: str,
    source: Annotated[str, _SOURCE],
    dead_letter: Annotated[str, _DEAD] = "",
    group: Annotated[str, _GROUP] = "",
) -> None:
    """Show what waits, what is under way and what was put aside."""
    from taut.bootstrap.adapters import open_bus
    from taut.entrypoints.operations.operation import to_json

    here = session(context)
    url, plan = _plan(endpoint, source, "answers-", dead_letter, group)
    here.ask("stream.look", {"endpoint": endpoint})
    with open_bus(_config(here), url) as bus:
        topic = to_json(bus.state(plan.source, plan.group))
        dead = to_json(bus.state(plan.dead_letters, _replay_group(plan.group)))
    result = {
        "endpoint": endpoint, "group": plan.group, "topic": plan.source, **topic, "dead_letter": plan.dead_letters,
        "dead_letters": dead,
    }  # fmt: skip
    here.show(result, _show_status)


def dead_letters(
    context: typer.Context,
    endpoint: str,
    source: Annotated[str, _SOURCE],
    dead_letter: Annotated[str, _DEAD] = "",
    group: Annotated[str, _GROUP] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
) -> None:
    """List what was put aside and not replayed yet, the oldest first, with the reason."""
    from taut.bootstrap.adapters import open_bus
    from taut.entrypoints import views

    here = session(context)
    url, plan = _plan(endpoint, source, "answers-", dead_letter, group)
    here.ask("stream.look", {"endpoint": endpoint, "dead_letters": True})
    with open_bus(_config(here), url) as bus:
        found = bus.peek(plan.dead_letters, _replay_group(plan.group), limit=limit)
    result = {"topic": plan.dead_letters, "dead_letters": [_letter(item) for item in found]}
    columns = ("id", "code", "reason", "position", "replays", "request_id")
    here.show(result, views.listed("dead_letters", columns, empty="nothing was put aside"))


def replay(
    context: typer.Context,
    endpoint: str,
    source: Annotated[str, _SOURCE],
    target: Annotated[str, _TARGET],
    dead_letter: Annotated[str, _DEAD] = "",
    group: Annotated[str, _GROUP] = "",
) -> None:
    """Score again what was put aside, once each; what fails again is put aside again.

    For example: taut stream replay delay --from redis://127.0.0.1:6379/0/flights --to delays
    """
    from taut.bootstrap.adapters import open_bus
    from taut.serving.stream import StreamPlan

    here = session(context)
    url, plan = _plan(endpoint, source, target, dead_letter, group)
    again = StreamPlan(
        endpoint=endpoint, source=plan.dead_letters, target=target, dead_letters=plan.dead_letters,
        group=_replay_group(plan.group), replay=True,
    )  # fmt: skip
    with open_bus(_config(here), url) as bus:
        state = bus.state(again.source, again.group)
    counts = _work(here, url, again, until_empty=True, at_most=state.waiting + state.pending)
    here.show(_told(again, counts), _show_counts)


def _plan(
    endpoint: str, source: str, target: str, dead_letter: str, group: str, **more: Any
) -> tuple[str, StreamPlan]:
    from taut.bootstrap.adapters import split_topic
    from taut.serving.stream import StreamPlan

    url, topic = split_topic(source)
    plan = StreamPlan(
        endpoint=endpoint, source=topic, target=target, dead_letters=dead_letter or f"{topic}-dead",
        group=group or f"taut-{endpoint}", **more,
    )  # fmt: skip
    return url, plan


def _replay_group(group: str) -> str:
    return f"{group}-replay"


def _config(here: Session) -> Config:
    from taut.bootstrap.config import Config

    return Config.load(here.home, here.environ)


def _work(
    here: Session, url: str, plan: StreamPlan, *, until_empty: bool, at_most: int | None = None
) -> Counts:
    import time

    from taut.bootstrap.adapters import without_password
    from taut.entrypoints.streaming import Bearer, run_stream

    config = _config(here)
    wanted = {
        "endpoint": plan.endpoint, "broker": without_password(url or config.bus), "source": plan.source,
        "target": plan.target, "dead_letters": plan.dead_letters, "group": plan.group, "replay": plan.replay,
    }  # fmt: skip

    def issue(*, renew: bool) -> str:
        with here.connect("stream.begin") as client:
            return str(client.call("stream.begin", {**wanted, "renew": renew})["token"])

    bearer = Bearer(here.token, issue, monotonic_s=time.monotonic)
    return run_stream(
        config, plan, url=url, bearer=bearer, note=_say, until_empty=until_empty, at_most=at_most
    )


def _say(event: str, words: str) -> None:
    with suppress(OSError):  # nobody listens any more
        sys.stderr.write(f"{event}: {words}\n")
        sys.stderr.flush()


def _told(plan: StreamPlan, counts: Counts) -> Json:
    from taut.entrypoints.operations.operation import to_json

    return {"endpoint": plan.endpoint, "group": plan.group, **to_json(counts)}


def _letter(delivery: Any) -> Json:
    from taut.core.errors import InvalidInput
    from taut.serving.stream import read_letter

    try:
        letter = read_letter(delivery.event)
    except InvalidInput as error:
        return {"id": delivery.position, "code": "malformed", "reason": error.message}
    return {
        "id": delivery.event.inputid, "code": letter.reason.code, "reason": letter.reason.message, "topic": letter.topic,
        "position": letter.position, "attempts": letter.attempts, "replays": letter.replays,
        "request_id": letter.request_id, "event": letter.event, "message": letter.message,
    }  # fmt: skip


def _show_counts(result: Json) -> None:
    typer.echo(
        f"received {result['received']:,}, answered {result['answered']:,}, put aside {result['dead']:,}, "
        f"new on their topics {result['new']:,}, in {result['seconds']:.1f} s"
    )


def _show_status(result: Json) -> None:
    dead = result["dead_letters"]
    typer.echo(
        f"{result['topic']}: {result['length']:,} lie there, {result['waiting']:,} wait for {result['group']}, "
        f"{result['pending']:,} are under way\n"
        f"{result['dead_letter']}: {dead['length']:,} put aside, {dead['waiting']:,} not replayed"
    )
