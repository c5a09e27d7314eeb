"""An installation on PostgreSQL, S3 and Redis whose servers a test may take away."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from door import Door
from installation import Installation

from servers import PostgresServer
from storage_faults import make_bucket
from taut.testing.brokers import RedisServer

_STEPS = (
    "apply", "data ingest orders", "data ingest backlog", "train late", "model approve late@1", "release start late 1",
)  # fmt: skip


class Scaled(NamedTuple):
    """One installation on servers of its own, which tests may take away and must give back.

    told: what each step on the way to it answered, by the words of the command.
    """

    shop: Installation
    postgres: PostgresServer
    s3: Door
    redis: RedisServer
    told: dict[str, dict[str, Any]]


@contextmanager
def open_scaled(folder: Path, s3_url: str) -> Iterator[Scaled]:
    """Yield the project of `taut init` in `folder`/shop with `late@1` live, on a PostgreSQL and a Redis of its own."""
    data = Path(tempfile.mkdtemp(prefix="taut-pg-"))  # short: a socket lies in it
    server = PostgresServer(data)
    redis = RedisServer(folder / "redis")
    redis.start()
    address = urlsplit(s3_url)
    try:
        with Door(str(address.hostname), address.port or 80) as s3:
            environ = {
                "TAUT_RECORDS": server.url,
                "TAUT_ONLINE": redis.url,
                "TAUT_BLOBS": f"s3://{make_bucket(s3_url)}/shop",
                "TAUT_S3_ENDPOINT": f"http://127.0.0.1:{s3.port}",
                "TAUT_S3_ACCESS_KEY_ID": "test",
                "TAUT_S3_SECRET_ACCESS_KEY": "test",
            }
            told = {"init": Installation(folder)("init", "shop")}
            shop = Installation(folder / "shop", environ=environ)
            for words in _STEPS:
                told[words] = shop(*words.split())
            yield Scaled(shop, server, s3, redis, told)
    finally:
        redis.stop()
        server.start()
        server.close()
        shutil.rmtree(data, ignore_errors=True)
