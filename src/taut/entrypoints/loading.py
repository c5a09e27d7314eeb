"""A load run from the command line: find the data plane, make the schedule and the requests, drive, report."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import msgspec

from taut.core.errors import InvalidInput, Unavailable
from taut.entrypoints.client import SOCKET, Client, answers, connect
from taut.entrypoints.load import (
    Address,
    Driver,
    Profile,
    from_instances,
    from_metadata,
    from_recorded,
    read_profile,
    rendered,
    report,
)
from taut.entrypoints.load.profile import Arrivals, steady
from taut.entrypoints.reaching import (
    address_of,
    advice,
    asking,
    inside_of,
    open_http,
    seen_from,
    verification,
)

if TYPE_CHECKING:
    from taut.trust.tls import ClientFiles

Json = dict[str, Any]
Progress = Callable[[str, float | None], None]

_TOKEN_SPARE_S: Final = 300
_REPLAYED: Final = 10_000
_CALLERS: Final = 200


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. profile: a file, instead of rate, duration and ramp. instances: None to make some up.

    replay: what the endpoint was asked before, `speed` times as fast, instead of all of these. Each recorded caller
    asks as a principal of his own, `load-0`, `load-1` …, so that the guard sees as many; with a token all ask by that.
    """

    endpoint: str
    rate: float = 100.0
    duration: str = "10s"
    ramp: str = "0s"
    profile: Path | None = None
    arrivals: Arrivals = "poisson"
    instances: list[Json] | None = None
    rows: int = 1
    replay: bool = False
    speed: float = 1.0
    connections: int = 512
    timeout_s: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.replay and (self.instances is not None or self.profile is not None):
            raise InvalidInput("--replay brings its own requests and times: leave --data and --profile out")


def run_load(
    home: Path,
    plan: Plan,
    progress: Progress,
    *,
    url: str | None,
    token: str | None,
    tls: ClientFiles | None = None,
) -> Json:
    """Drive an endpoint and return the run's document.

    url: of the data plane or of the control plane; without it, the platform that runs in the home is driven, over the
    gateways' own Unix socket where they speak TLS to others. tls: whom to trust at the URL, and what to show.
    Raises Unavailable where no gateway listens, or nothing answered; NotFound for an endpoint that is not served.
    """
    with ExitStack() as stack:
        where, control = _data_plane(home, url, token, tls, stack)
        inside = inside_of(home) if url is None else None
        recorded = _recorded(control, plan, progress) if plan.replay else None
        profile = None if recorded is not None else _profile(plan)
        seconds = recorded[-1][0] if recorded else profile.seconds if profile is not None else 0.0
        bearer = token or _token(control, seconds)
        bearers = _bearers(control, recorded, seconds) if recorded and token is None else {}
        metadata = _metadata(where, plan.endpoint, bearer, tls, inside)
    parts = urlsplit(where)

    def finish(body: bytes, caller: int = -1) -> bytes:
        return rendered(plan.endpoint, body, host=parts.netloc, token=bearers.get(caller, bearer))

    if recorded is not None:
        arrivals: Iterator[tuple[float, bytes]] = (
            (at, finish(body, caller)) for at, caller, body in recorded
        )
    else:
        assert profile is not None, "one of the two"
        arrivals = _scheduled(plan, profile, metadata, finish)
    with _addressed(where, tls, inside) as address:
        driver = Driver(
            address, arrivals, connections_max=plan.connections, timeout_s=plan.timeout_s, expected_s=seconds
        )
        measured = _driven(driver, progress)
    driven = where if inside is None else f"unix:{inside}"
    told = report(measured, endpoint=plan.endpoint, url=driven, schedule=_said(plan), schedule_s=seconds)
    if not measured.answered:
        why = ", ".join(f"{count:,} {kind}" for kind, count in told["errors"].items()) or "nothing was sent"
        raise Unavailable(f"{where} answered none of {measured.offered:,} requests ({why})")
    return told


@contextmanager
def _addressed(where: str, tls: ClientFiles | None, inside: Path | None) -> Iterator[Address]:
    from taut.serving.snapshot.wire import socket_address

    parts = urlsplit(where)
    host, port = parts.hostname or "127.0.0.1", parts.port or (443 if parts.scheme == "https" else 80)
    if inside is not None:
        with socket_address(inside) as path:
            yield Address(host, port, path=path)
        return
    verified = verification(where, tls)
    yield Address(host, port, None if isinstance(verified, bool) else verified)


def _driven(driver: Driver, progress: Progress) -> Any:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(driver.run(progress))


def _profile(plan: Plan) -> Profile:
    if plan.profile is not None:
        return read_profile(plan.profile)
    return steady(plan.rate, plan.duration, ramp=plan.ramp)


def _scheduled(
    plan: Plan, profile: Profile, metadata: Json, finish: Callable[[bytes], bytes]
) -> Iterator[tuple[float, bytes]]:
    chance = random.Random(plan.seed)  # noqa: S311 - which values and moments, the same for the same seed
    if plan.instances is not None:
        bodies = from_instances(plan.instances, rows=plan.rows)
    else:
        bodies = from_metadata(metadata, rows=plan.rows, uniform=chance.random)
    return zip(profile.arrivals(plan.arrivals, chance.random), cycle(map(finish, bodies)), strict=False)


def _recorded(control: Client | None, plan: Plan, progress: Progress) -> list[tuple[float, int, bytes]]:
    if control is None:
        raise InvalidInput("a replay needs the control plane, which has the log: give its address with --url")
    request = {"endpoint": plan.endpoint, "limit": _REPLAYED}
    found = control.call("prediction.recorded", request, progress=progress)
    return list(from_recorded(found["requests"], speed=plan.speed))


def _data_plane(
    home: Path, url: str | None, token: str | None, tls: ClientFiles | None, stack: ExitStack
) -> tuple[str, Client | None]:
    """Return the data plane's address, and control where it was reached."""
    import httpx

    if url is not None:
        url = address_of(url, tls)
        try:
            with open_http(url, tls, timeout=10.0) as http:
                if http.get("/v2").status_code == 200:
                    return url, None
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Unavailable(f"{url} does not answer ({error}): check --url{advice(error, url)}") from error
    if url is None and not answers(home / SOCKET):
        raise Unavailable(f"no platform runs in {home}: start it with `taut up`, or name one with --url")
    client = stack.enter_context(connect(home, url=url, token=token, tls=tls))
    where = client.call("status.show").get("data_plane")
    if not where:
        raise Unavailable("the platform runs, but no gateway of it listens: look at `taut status`")
    return seen_from(str(where), url or ""), client


def _bearers(
    control: Client | None, recorded: list[tuple[float, int, bytes]], seconds: float
) -> dict[int, str]:
    """Return a token of a principal of his own for each recorded caller."""
    callers = {caller for _, caller, _ in recorded}
    if len(callers) > _CALLERS:
        raise InvalidInput(
            f"{len(callers):,} callers were recorded, and at most {_CALLERS} are made for a replay: give --token, by which all ask"
        )
    return {caller: _token(control, seconds, principal=f"load-{caller}") for caller in sorted(callers)}


def _token(control: Client | None, seconds: float, *, principal: str = "command-line") -> str:
    if control is None:
        raise InvalidInput("a data plane asks who drives it: give --token, or --url of the control plane")
    ttl = f"{int(seconds) + _TOKEN_SPARE_S}s"
    request = {"principal": principal, "roles": ["predictor"], "ttl": ttl, "enrol": "service"}
    return str(control.call("token.create", request)["token"])


def _metadata(where: str, endpoint: str, token: str, tls: ClientFiles | None, inside: Path | None) -> Json:
    """Return what an endpoint takes. Raises what the data plane says where it does not serve it to this caller."""
    import httpx

    from taut.entrypoints.predicting import answer_of

    headers = {"authorization": f"Bearer {token}"}
    try:
        with asking(where, tls, inside=inside, headers=headers, timeout=10.0) as http:
            found = http.get(f"/v2/models/{quote(endpoint, safe='')}")
    except httpx.TransportError as error:
        raise Unavailable(f"the data plane at {where} does not answer ({error})") from error
    return answer_of(found.status_code, dict(found.headers), found.content, where)


def _said(plan: Plan) -> Json:
    if plan.replay:
        return {"replay": True, "speed": plan.speed}
    shown: Json = {"arrivals": plan.arrivals, "rows": plan.rows, "seed": plan.seed}
    if plan.profile is not None:
        return {**shown, "profile": str(plan.profile)}
    return {**shown, "rate": plan.rate, "duration": plan.duration, "ramp": plan.ramp}
