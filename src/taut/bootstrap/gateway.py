"""What a gateway opens: few things, chosen without loading what only control needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from taut.bootstrap.adapters import OnlineFace, online_reader
from taut.bootstrap.config import Config
from taut.bootstrap.joined import read_joined
from taut.core.devices import Devices, parse_devices
from taut.core.errors import InvalidInput, TautError, Unavailable
from taut.core.evidence import Scalar
from taut.ports.online import OnlineRow, Stretch
from taut.ports.world import Random
from taut.serving.tracing import Exporter, Send, Tracer

_TRACES: Final = "/v1/traces"
_TIMEOUT_S: Final = 10.0
_CPU_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")  # of the control group that a container sees as its root
_AGAIN: Final = (408, 429, 502, 503, 504)


@contextmanager
def open_online_reader(config: Config) -> Iterator[OnlineFace]:
    """Yield a reader and auditor of the installation's online features; nothing is opened before the first read.

    On a further machine SQLite's cannot be had: its file is on the first one alone.
    """
    joined = read_joined(config.home)
    if joined is not None and not has_shared_features(config):
        yield Elsewhere(joined.machine)
        return
    with closing(online_reader(config)) as reader:
        yield reader


def has_shared_features(config: Config) -> bool:
    """Whether online features lie where every machine can read them."""
    return not config.online.startswith("sqlite:")


class Elsewhere:
    """Online features that lie on another machine: every reading says so."""

    def __init__(self, machine: str) -> None:
        self._said: Final = (
            f"they are kept in SQLite on the installation's first machine, where machine {machine!r} cannot read them: "
            "ask the first machine for this endpoint, or keep them in Redis (TAUT_ONLINE)"
        )

    @property
    def local(self) -> bool:
        return True

    async def get(self, feature_set: str, keys: Sequence[tuple[Scalar, ...]]) -> list[OnlineRow | None]:
        return [self.get_now(feature_set, key) for key in keys]

    def get_now(self, _feature_set: str, _key: tuple[Scalar, ...]) -> OnlineRow | None:
        raise Unavailable(f"online features cannot be read: {self._said}")

    def walk(self, _feature_set: str, _after: bytes, _limit: int) -> Stretch:
        raise Unavailable(self._said)

    def newest_us(self, _feature_set: str) -> int | None:
        raise Unavailable(self._said)

    def close(self) -> None:
        pass


def machine_devices(config: Config) -> Devices:
    """Return what models may run on here. Raises InvalidInput for settings that are not understood."""
    return parse_devices(config.devices, cores=machine_cores())


def machine_cores(quota: Path = _CPU_QUOTA) -> int:
    """Return the cores that this process may use, or what its control group allows where that is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
    except (OSError, ValueError):
        return cores
    return min(cores, max(1, int(allowed) // int(period))) if allowed.isdigit() else cores


class Peering(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway needs to ask those of other machines. machine: the name of this one, empty for the first.

    first_at: the host by which the first machine is reached. features_here: whether online features can be had here.
    """

    machine: str
    first_at: str
    features_here: bool


def peering(config: Config) -> Peering:
    """Return how gateways of this home ask those of other machines."""
    joined = read_joined(config.home)
    if joined is None:
        return Peering(machine="", first_at="", features_here=True)
    host = str(urlsplit(joined.control).hostname)
    return Peering(
        machine=joined.machine,
        first_at=host,
        features_here=has_shared_features(config),
    )


def system_random() -> Random:
    from taut.adapters.world import SystemRandom

    return SystemRandom()


@contextmanager
def open_tracer(
    config: Config, *, name: str, version: str, random: Random, on_trouble: Callable[[TautError], None]
) -> Iterator[Tracer | None]:
    """Yield the tracer of a gateway whose spans go to `config.otlp`; None where nothing is configured.

    name: of the gateway. Raises InvalidInput for settings that make no sense.
    """
    settings = trace_settings(config)
    if settings is None:
        yield None
        return
    tracer = Tracer(ratio=settings.ratio, random=random)
    resource = {"service.name": "taut-gateway", "service.instance.id": name, "service.version": version}
    with (
        _otlp(settings) as send,
        Exporter(tracer, send, resource=resource, random=random, on_trouble=on_trouble),
    ):
        yield tracer


class TraceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where traces go, and how many requests without a trace of their own are traced."""

    url: str
    ratio: float
    headers: dict[str, str]


def trace_settings(config: Config) -> TraceSettings | None:
    """Read the settings of traces; None where there are none. Raises InvalidInput, naming the variable."""
    if not config.otlp:
        return None
    parts = urlsplit(config.otlp)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidInput("TAUT_OTLP is no address of a collector: write for example http://127.0.0.1:4318")
    url = config.otlp.rstrip("/")
    try:
        ratio = float(config.otlp_ratio)
    except ValueError:
        ratio = -1.0
    if not 0.0 <= ratio <= 1.0:
        raise InvalidInput(f"TAUT_OTLP_RATIO is {config.otlp_ratio[:40]!r}: give a number from 0 to 1")
    headers: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in config.otlp_headers.split(","))):
        key, separator, value = pair.partition("=")
        if not separator or not key.strip() or not f"{key}{value}".isascii() or not value.isprintable():
            raise InvalidInput("TAUT_OTLP_HEADERS is not understood: write name=value,name=value")
        headers[key.strip()] = value.strip()
    return TraceSettings(url=url if url.endswith(_TRACES) else url + _TRACES, ratio=ratio, headers=headers)


@contextmanager
def _otlp(settings: TraceSettings) -> Iterator[Send]:
    """Yield what delivers export requests over HTTP."""
    import httpx

    headers = {**settings.headers, "content-type": "application/json"}
    with httpx.Client(headers=headers, timeout=_TIMEOUT_S, trust_env=False) as client:

        def send(data: bytes) -> int:
            try:
                answer = client.post(settings.url, content=data)
            except httpx.HTTPError as error:
                raise Unavailable(
                    f"the collector of traces does not answer ({type(error).__name__})"
                ) from error
            if answer.status_code in _AGAIN:
                wait = answer.headers.get("retry-after", "")
                raise Unavailable(
                    f"the collector of traces answered {answer.status_code}",
                    retry_after_s=float(wait) if wait.isdigit() else 0.0,
                )
            if not answer.is_success:
                raise InvalidInput(f"the collector of traces answered {answer.status_code}: check TAUT_OTLP")
            return _refused(answer.content)

        yield send


class _Partial(msgspec.Struct, frozen=True, rename="camel"):
    rejected_spans: int | str = 0


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    partial_success: _Partial = _Partial()


def _refused(body: bytes) -> int:
    """Return how many spans the collector says that it did not take; none where it says nothing readable."""
    try:
        return int(msgspec.json.decode(body or b"{}", type=_Answer).partial_success.rejected_spans)
    except (msgspec.MsgspecError, ValueError):
        return 0
