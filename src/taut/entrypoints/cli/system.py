"""Commands on the installation as a whole, and predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from taut.entrypoints.cli.session import session
from taut.entrypoints.cli.top import top


def register(app: typer.Typer) -> None:
    app.command("up")(up)
    app.command("predict")(predict)
    app.command("status")(status)
    app.command("top")(top)
    app.command("quota")(quota)
    app.command("monitor")(monitor)
    app.command("feedback")(feedback)
    app.command("doctor")(doctor)


def up(
    context: typer.Context,
    project: Annotated[Path | None, typer.Option("--project", help="Apply this project file first.")] = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Of the data plane; control takes the next one.", min=0, max=65534)
    ] = 8080,
    gateways: Annotated[int, typer.Option(help="How many processes answer.", min=1, max=64)] = 1,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate and its issuers, as PEM: all planes speak TLS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, as PEM.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="Authorities, as PEM: clients must show a certificate of theirs.")
    ] = None,
    join: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Control plane of an installation that this one serves for, as a further machine.",
        ),
    ] = None,
    announce: Annotated[
        str | None,
        typer.Option(metavar="URL", help="With --join: the data plane here, as other machines reach it."),
    ] = None,
) -> None:
    """Run the platform until Ctrl-C.

    For example: taut up --project project.py --gateways 2

    With --join only gateways run here, which serve what the other installation releases: taut up --join https://HOST:8081
    --token INVITATION, which `taut machine invite NAME` printed there; later starts need none.

    On another host than loopback it needs TLS: --tls-cert and --tls-key, or TAUT_TLS_CERT and TAUT_TLS_KEY. Their files
    may be replaced while it runs (`taut tls create` makes a pair for a try).
    """
    from taut.bootstrap.config import Config
    from taut.bootstrap.gateway import machine_devices, trace_settings
    from taut.bootstrap.joined import refuse_joined
    from taut.core.errors import InvalidInput
    from taut.entrypoints.cli.project import apply_first
    from taut.entrypoints.joining import data_plane_url
    from taut.entrypoints.joining import join as join_as
    from taut.entrypoints.listening import TlsPaths, require_secure
    from taut.entrypoints.running import run_platform

    here = session(context)
    config = Config.load(here.home, here.environ)
    trace_settings(config)  # else each process would say it, and be started for ever; so for the devices
    machine_devices(config)
    given = (tls_cert or config.tls_cert, tls_key or config.tls_key, tls_client_ca or config.tls_client_ca)
    tls = TlsPaths.of(*map(str, given))
    require_secure(host, tls=tls is not None, plane="the data plane")
    if join is None:
        if announce is not None:
            raise InvalidInput("--announce says where a further machine is reached: give it with --join")
        refuse_joined(here.home)
        if project is not None:
            apply_first(here, project)
        run_platform(here.home, host=host, port=port, gateways=gateways, json=here.json, tls=tls)
        return
    if project is not None:
        raise InvalidInput(
            "--project is applied by the installation that is joined: leave it out beside --join"
        )
    url = announce or data_plane_url(host, port, tls=tls is not None)
    joining = join_as(here.home, join, token=here.token, tls=here.tls, url=url, gateways=gateways)
    run_platform(
        here.home,
        host=host,
        port=port,
        gateways=gateways,
        json=here.json,
        tls=tls,
        joining=joining,
        control=join,
    )


def predict(
    context: typer.Context,
    endpoint: str,
    data: Annotated[str, typer.Option("--data", "-d", help="JSON, @FILE, or - for standard input.")],
) -> None:
    """Ask an endpoint.

    For example: taut predict delay --data '{"carrier": "UA", "origin": "EWR"}'

    With --url, that address is asked, of either plane; without it, the installation here, running or not.
    """
    from taut.entrypoints import views
    from taut.entrypoints.inputs import instances, read_json
    from taut.entrypoints.predicting import predict as ask
    from taut.entrypoints.predicting import predict_at

    here = session(context)
    rows = instances(read_json(data))
    if here.url is not None:
        result = predict_at(here.url, endpoint, rows, token=here.token, tls=here.tls)
    else:
        with here.connect("model.predict") as client:
            result = ask(client, here.home, endpoint, rows, token=here.token)
    here.show(result, views.predictions)


def feedback(
    context: typer.Context,
    endpoint: str,
    data: Annotated[str, typer.Option("--data", "-d", help="JSON, @FILE, or - for standard input.")],
) -> None:
    """Tell what became true of answers: one outcome, or a list of them.

    For example: taut feedback delay --data '{"request_id": "req_...", "row": 0, "label": true}'

    Without a request_id, the newest answer about an entity before a time is meant: {"entity": {"flight": 7}, "at":
    "2026-01-01T12:00:00Z", "label": false}. The last outcome of an answer counts.
    """
    from taut.entrypoints import render
    from taut.entrypoints.inputs import outcomes, read_json
    from taut.entrypoints.predicting import FEEDBACK, post, post_at

    here = session(context)
    document = {"endpoint": endpoint, "outcomes": outcomes(read_json(data))}
    if here.url is not None:
        result = post_at(here.url, FEEDBACK, document, token=here.token, tls=here.tls)
    else:
        with here.connect("model.feedback") as client:
            result = post(client, here.home, FEEDBACK, document, token=here.token)
    here.show(result, render.fields)


def status(
    context: typer.Context,
    endpoint: Annotated[str, typer.Argument(help="Only this one, and all about it.")] = "",
) -> None:
    """Show everything at a glance, or one service on a page: what answers, how well, what is wrong, who changed what.

    For example: taut status delay
    """
    from taut.entrypoints import service_view, views

    if endpoint:
        session(context).act("service.show", {"endpoint": endpoint}, service_view.show)
    else:
        session(context).act("status.show", {}, views.status)


def quota(context: typer.Context) -> None:
    """Show what each gateway may let pass of every quota, who asks for how much, and what is left of budgets.

    For example: taut quota
    """
    from taut.entrypoints import quota_view

    session(context).act("status.quota", {}, quota_view.show)


def monitor(
    context: typer.Context,
    endpoint: Annotated[str, typer.Argument(help="Of which; all without one.")] = "",
) -> None:
    """Show how far an endpoint's traffic is from training, what of it is faulty, and how good its answers are.

    For example: taut monitor delay
    """
    from taut.entrypoints import monitor_view

    session(context).act("monitor.show", {"endpoint": endpoint}, monitor_view.show)


def doctor(context: typer.Context) -> None:
    """Say what is wrong here, and how to mend it; exit 7 when something stands in the way."""
    from taut.entrypoints import views
    from taut.entrypoints.doctor import examine
    from taut.entrypoints.operations.operation import to_json

    here = session(context)
    findings = examine(here.home, here.environ)
    worst = {finding.state for finding in findings}
    result: dict[str, Any] = {"ok": "bad" not in worst, "findings": to_json(findings)}
    here.show(result, views.doctor)
    if not result["ok"]:
        raise typer.Exit(7)
