"""The one table from URL schemes to adapters; each is imported on use, so that nobody pays for what he does not run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from taut.bootstrap.config import Config
from taut.core.errors import InvalidInput
from taut.core.units import parse_duration
from taut.ports.blobs import Blobs
from taut.ports.bus import Bus
from taut.ports.jobs import Jobs
from taut.ports.keys import Keys
from taut.ports.mail import Mail
from taut.ports.online import OnlineAuditor, OnlineReader, OnlineWriter
from taut.ports.secrets import Secrets
from taut.ports.sources import Sources
from taut.ports.web import Web
from taut.ports.world import Clock, Ids, Random

if TYPE_CHECKING:  # they load SQLAlchemy and polars, and gateways, who open other adapters, have neither
    from taut.ports.records import Records
    from taut.ports.tables import Tables

T = TypeVar("T")
_BUSY_S: Final = 10.0


class OnlineFace(OnlineReader, OnlineAuditor, Protocol):
    """Reads for requests, and looks the store over."""

    def close(self) -> None: ...


class OnlineKeeper(OnlineWriter, Protocol):
    """Writes, and is closed."""

    def close(self) -> None: ...


def open_records(config: Config) -> Records:
    """Open the database that the configuration names and bring its tables up to date."""
    records = choose(config.records, _RECORDS, "records")(config)
    try:
        from taut.adapters.records.migration import migrate

        migrate(records)
    except BaseException:
        records.close()
        raise
    return records


def open_blobs(config: Config, *, key: Callable[[], bytes], stack: ExitStack) -> Blobs:
    """Open the object store that the configuration names; `key` gives what seals it, where the URL asks for that."""
    return choose(config.blobs, _BLOBS, "blobs")(config, key, stack)


def open_tables(blobs: Blobs) -> Tables:
    from taut.adapters.tables.parquet import ParquetTables

    return ParquetTables(blobs)


def open_sources(config: Config) -> dict[str, Sources]:
    """Return what can read source files, by URL scheme."""
    from taut.adapters.sources.file import FileSources
    from taut.adapters.sources.s3 import S3Sources

    options: dict[str, object] = {"region": config.s3_region}
    if config.s3_endpoint:
        options["endpoint"] = config.s3_endpoint
        options["client_options"] = {"allow_http": urlsplit(config.s3_endpoint).hostname == "127.0.0.1"}
    if config.s3_access_key_id:
        options["access_key_id"] = config.s3_access_key_id
        options["secret_access_key"] = config.s3_secret_access_key
    return {"file": FileSources(), "s3": S3Sources(options)}


def open_secrets(config: Config, keys: Keys, random: Random) -> Secrets:
    from taut.adapters.secrets.file import FileSecrets

    return FileSecrets(config.home / "secrets", keys=keys, random=random)


def open_web() -> Web:
    from taut.adapters.web import HttpxWeb

    return HttpxWeb()


def open_outside(config: Config) -> tuple[Web, Mail]:
    """Return how others are told: by web and by mail, believing the system's authorities and that of `tls_ca`."""
    import ssl

    from taut.adapters.mail import SmtpMail
    from taut.adapters.web import HttpxWeb

    tls = ssl.create_default_context()
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    if config.tls_ca:
        tls.load_verify_locations(config.tls_ca)
    return HttpxWeb(tls), SmtpMail(tls)


def open_jobs(config: Config, *, yields: Callable[[], bool]) -> Jobs:
    from taut.adapters.jobs.process import ProcessJobs

    return ProcessJobs(config.work / "jobs", require=tuple(config.sandbox.split()), yields=yields)


@contextmanager
def open_online(config: Config) -> Iterator[tuple[OnlineReader, OnlineWriter]]:
    """Yield the store of online features that the configuration names."""
    with (
        closing(choose(config.online, _ONLINE, "online")[1](config)) as writer,
        closing(online_reader(config)) as reader,
    ):
        yield reader, writer


def online_reader(config: Config) -> OnlineFace:
    """Return what reads online features; nothing is opened before the first reading."""
    return choose(config.online, _ONLINE, "online")[0](config)


@contextmanager
def open_bus(config: Config, url: str = "") -> Iterator[Bus]:
    """Open the broker at `url`, or the one that the configuration names.

    The query of a URL may say `lease=30s`, how long a consumer may hold a message; on Redis and Kafka
    `window=1000000`, how many events of a topic are known again; on NATS `duplicates=15m`, for how long they are.
    """
    place, options = _options(urlsplit(url or config.bus))
    open_, known = choose(place, _BUSES, "bus")
    unknown = sorted(set(options) - {"lease_s", *known})
    if unknown:
        raise InvalidInput(
            f"a bus at {urlsplit(place).scheme}: has no option {unknown[0]!r}: leave it out of the URL"
        )
    with ExitStack() as stack:
        bus = open_(config, place, options, stack)
        stack.callback(bus.close)
        yield bus


def split_topic(address: str) -> tuple[str, str]:
    """Return the broker's URL and the topic of `URL/TOPIC`; of a bare topic, an empty URL for the configured broker."""
    if ":" not in address:
        return "", address
    parts = urlsplit(address)
    path, _, topic = parts.path.rpartition("/")
    if not topic:
        raise InvalidInput(
            f"{without_password(address)} names no topic: write URL/TOPIC, for example redis://127.0.0.1:6379/0/orders"
        )
    return urlunsplit(parts._replace(path=path)), topic


def without_password(url: str) -> str:
    """Return a broker's URL without user, password and options, for messages and the ledger."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def _options(parts: SplitResult) -> tuple[str, dict[str, Any]]:
    """Take what is ours from a URL's query; the rest is the broker's."""
    found: dict[str, Any] = {}
    rest: list[tuple[str, str]] = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "lease":
            found["lease_s"] = parse_duration(value).total_seconds()
        elif name == "duplicates":
            found["duplicate_window_s"] = parse_duration(value).total_seconds()
        elif name == "window" and value.isdigit() and int(value) > 0:
            found["window"] = int(value)
        else:
            rest.append((name, value))
    return urlunsplit(parts._replace(query=urlencode(rest))), found


def open_world() -> tuple[Clock, Ids, Random]:
    from taut.adapters.world import SystemClock, SystemIds, SystemRandom

    clock, random = SystemClock(), SystemRandom()
    return clock, SystemIds(clock, random), random


def choose(url: str, table: dict[str, T], setting: str) -> T:
    """Return what `table` has for the scheme of a URL. Raises InvalidInput, naming the setting."""
    scheme = urlsplit(url).scheme.split("+")[0]
    if scheme not in table:
        raise InvalidInput(f"{setting} URL scheme {scheme!r} is not known: use one of {', '.join(table)}")
    return table[scheme]


def _sqlite(config: Config) -> Records:
    from taut.adapters.records import open_sqlite

    path = urlsplit(config.records).path
    return open_sqlite(Path(path) if path else config.home / "taut.db")


def _postgres(config: Config) -> Records:
    from taut.adapters.records import open_postgres

    return open_postgres(config.records)


def _local_blobs(config: Config, key: Callable[[], bytes], stack: ExitStack) -> Blobs:
    from taut.adapters.blobs.local import LocalBlobs
    from taut.adapters.blobs.sealed import Seal

    parts = urlsplit(config.blobs)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    sealed = options.pop("sealed", "yes")
    if options or sealed not in ("yes", "no"):
        raise InvalidInput(
            "TAUT_BLOBS is not understood: write file:/path, and ?sealed=no where nothing is to be encrypted"
        )
    root = Path(parts.path) if parts.path else config.home / "blobs"
    if sealed == "no":
        return LocalBlobs(root)
    blobs = LocalBlobs(root, seal=Seal(key(), open_world()[2]), copies=config.work / "copies")
    stack.callback(blobs.close)
    return blobs


def _s3_blobs(config: Config, _key: Callable[[], bytes], stack: ExitStack) -> Blobs:
    from taut.adapters.blobs.s3 import S3Blobs, S3Options

    options = S3Options(
        endpoint=config.s3_endpoint, region=config.s3_region, access_key_id=config.s3_access_key_id,
        secret_access_key=config.s3_secret_access_key,
    )  # fmt: skip
    blobs = S3Blobs(config.blobs, copies=config.work / "copies", options=options)
    stack.callback(blobs.close)
    return blobs


def _sqlite_reader(config: Config) -> OnlineFace:
    from taut.adapters.online.sqlite import SqliteOnlineReader

    return SqliteOnlineReader(config.home / "online.db")


def _sqlite_writer(config: Config) -> OnlineKeeper:
    from taut.adapters.online.sqlite import SqliteOnlineWriter

    return SqliteOnlineWriter(config.home / "online.db", busy_timeout_s=_BUSY_S)


def _redis_reader(config: Config) -> OnlineFace:
    installed("redis", "redis")
    from taut.adapters.online.redis import RedisOnlineReader

    return RedisOnlineReader(config.online)


def _redis_writer(config: Config) -> OnlineKeeper:
    installed("redis", "redis")
    from taut.adapters.online.redis import RedisOnlineWriter

    return RedisOnlineWriter(config.online)


def _records_bus(config: Config, _url: str, options: dict[str, Any], stack: ExitStack) -> Bus:
    from taut.adapters.bus.records import RecordsBus

    records = choose(config.records, _RECORDS, "records")(config)
    stack.callback(records.close)
    records.check()
    clock, _, random = open_world()
    return RecordsBus(records, clock, random, **options)


def _redis_bus(_config: Config, url: str, options: dict[str, Any], _stack: ExitStack) -> Bus:
    installed("redis", "redis")
    from taut.adapters.bus.redis import RedisBus

    clock, _, random = open_world()
    return RedisBus(url, clock, random, **options)


def _nats_bus(_config: Config, url: str, options: dict[str, Any], _stack: ExitStack) -> Bus:
    installed("nats", "nats")
    from taut.adapters.bus.nats import NatsBus

    return NatsBus(url, open_world()[0], **options)


def _kafka_bus(_config: Config, url: str, options: dict[str, Any], _stack: ExitStack) -> Bus:
    """Properties of librdkafka may stand in the URL's query: `kafka://host:9092/topic?security.protocol=SSL`."""
    installed("confluent_kafka", "kafka")
    from taut.adapters.bus.kafka import KafkaBus

    parts = urlsplit(url)
    clock, _, random = open_world()
    return KafkaBus(parts.netloc, clock, random, options=dict(parse_qsl(parts.query)), **options)


def installed(module: str, extra: str) -> None:
    """Raise InvalidInput where a driver is missing, naming the extra that brings it."""
    if find_spec(module) is None:
        raise InvalidInput(f"the driver {module!r} is not installed: pip install 'taut[{extra}]'")


_ONLINE: Final[dict[str, tuple[Callable[[Config], OnlineFace], Callable[[Config], OnlineKeeper]]]] = {
    "sqlite": (_sqlite_reader, _sqlite_writer),
    "redis": (_redis_reader, _redis_writer),
    "rediss": (_redis_reader, _redis_writer),
}
_RECORDS: Final[dict[str, Callable[[Config], Records]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgres,
    "postgres": _postgres,
}
_BLOBS: Final[dict[str, Callable[[Config, Callable[[], bytes], ExitStack], Blobs]]] = {
    "file": _local_blobs,
    "s3": _s3_blobs,
}
_OpenBus = Callable[[Config, str, dict[str, Any], ExitStack], Bus]
_BUSES: Final[dict[str, tuple[_OpenBus, tuple[str, ...]]]] = {  # with the options that only it has
    "records": (_records_bus, ()),
    "redis": (_redis_bus, ("window",)),
    "rediss": (_redis_bus, ("window",)),
    "nats": (_nats_bus, ("duplicate_window_s",)),
    "tls": (_nats_bus, ("duplicate_window_s",)),
    "kafka": (_kafka_bus, ("window",)),
}
