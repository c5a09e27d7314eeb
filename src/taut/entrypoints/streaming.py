"""A stream's process: a gateway's core without a listener, a bus, and the pipeline between its topics."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime
from typing import Final, Protocol

from taut import __version__
from taut.bootstrap.adapters import open_bus
from taut.bootstrap.artifacts import artifacts_digest, build_digest
from taut.bootstrap.config import Config
from taut.bootstrap.gateway import open_online_reader, system_random
from taut.core.errors import Corrupt, NotFound, TautError
from taut.entrypoints.errors import DATA_PLANE
from taut.entrypoints.gateway_main import start_zygote
from taut.entrypoints.operations.streams import LIFE_S
from taut.serving.gateway import Gateway, GatewayNode, World
from taut.serving.predictions import PredictionLog
from taut.serving.snapshot import SnapshotStore, TrustFile
from taut.serving.stream import Counts, Scoring, StreamPlan, StreamProcessor
from taut.serving.tasks import end_task
from taut.serving.workers import Fleet, Unwarded

_BATCH_THREADS: Final = 2
_TURN_S: Final = 60.0
_SEGMENT_BYTES: Final = 32 * 2**20
Note = Callable[[str, str], None]


class Issue(Protocol):
    """Asks control for a token."""

    def __call__(self, *, renew: bool) -> str: ...


class Bearer:
    """The token of a stream: the one that was given, or one of the service `stream` that is renewed in time.

    issue: asks control for one, `renew` for a next one. A token that cannot be renewed is used until it expires.
    """

    def __init__(self, given: str | None, issue: Issue, *, monotonic_s: Callable[[], float]) -> None:
        self._given: Final = given
        self._issue: Final = issue
        self._monotonic_s: Final = monotonic_s
        self._token = given or issue(renew=False)
        self._renew_s = monotonic_s() + LIFE_S / 2

    def __call__(self) -> str:
        return self._token

    async def renewing(self, note: Note) -> None:
        """Renew for as long as this task lives."""
        while self._given is None:
            await asyncio.sleep(max(1.0, self._renew_s - self._monotonic_s()))
            try:
                loop = asyncio.get_running_loop()
                self._token = await loop.run_in_executor(None, lambda: self._issue(renew=True))
                self._renew_s = self._monotonic_s() + LIFE_S / 2
            except TautError as error:
                note("token", f"the token cannot be renewed yet: {error.message}")
                self._renew_s = self._monotonic_s() + LIFE_S / 20


def run_stream(
    config: Config,
    plan: StreamPlan,
    *,
    url: str,
    bearer: Bearer,
    note: Note,
    until_empty: bool = False,
    at_most: int | None = None,
) -> Counts:
    """Run a stream in this process until SIGTERM or SIGINT, what is under way included; return what it did.

    url: the broker's, empty for the configured one. Raises NotFound when the endpoint is not served from the home, and
    what StreamProcessor.run raises.
    """
    import uvloop

    return uvloop.run(
        _run(config, plan, url=url, bearer=bearer, note=note, until_empty=until_empty, at_most=at_most)
    )


async def _run(
    config: Config,
    plan: StreamPlan,
    *,
    url: str,
    bearer: Bearer,
    note: Note,
    until_empty: bool,
    at_most: int | None,
) -> Counts:
    loop = asyncio.get_running_loop()
    async with _gateway(config) as gateway:
        if gateway.active is None or plan.endpoint not in gateway.active.endpoints:
            raise NotFound(
                f"endpoint {plan.endpoint!r} is not served from {config.home}: release a version to it first"
            )
        with open_bus(config, url) as bus:
            scoring = Scoring(gateway, plan, bearer=bearer, now=lambda: datetime.now(UTC))
            processor = StreamProcessor(bus, scoring, plan, random=system_random(), note=note)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, processor.stop)
            renewing = asyncio.create_task(bearer.renewing(note))
            note("ready", f"{plan.source} -> {plan.endpoint} -> {plan.target}")
            gc.freeze()  # what is loaded now lives for long: no collection need walk it again
            try:
                return await processor.run(until_empty=until_empty, at_most=at_most)
            finally:
                await end_task(renewing)


@asynccontextmanager
async def _gateway(config: Config) -> AsyncIterator[Gateway]:
    """Yield a gateway that follows control, with a prediction log of its own, and no listener."""
    home, name, random = config.home, f"stream-{os.getpid()}", system_random()
    async with AsyncExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(_BATCH_THREADS, thread_name_prefix="batch"))
        online = stack.enter_context(open_online_reader(config))
        log = stack.enter_context(
            closing(
                PredictionLog(
                    home / "log" / "predictions", name, now_us=_now_us, monotonic_s=time.monotonic, random=random,
                    segment_bytes=_SEGMENT_BYTES,
                )
            )
        )  # fmt: skip
        gateway = Gateway(
            log=log, online=online, statuses=DATA_PLANE,
            world=World(_now_us, time.monotonic, time.perf_counter_ns, random, __version__), pool=pool,
            log_failure=_log_failure,
        )  # fmt: skip
        trust = TrustFile(home / "serving" / "trust.json")
        store = SnapshotStore(home / "serving", trust)
        build = build_digest(artifacts_digest())
        fleet = Fleet(start_zygote, warden=lambda *_: Unwarded(build))
        stack.push_async_callback(fleet.close)
        node = GatewayNode(
            gateway, home=home, name=name, store=store, trust=trust, random=random, fleet=fleet,
            model_memory_bytes=config.model_memory_bytes,
        )  # fmt: skip
        stack.push_async_callback(node.close)
        await node.start_from_disk()
        if gateway.active is None and gateway.refused_snapshot:
            raise Corrupt(
                f"what {home} serves is not what was signed, so nothing is answered ({gateway.refused_snapshot}): "
                "release the version again"
            )
        if gateway.active is None:
            raise NotFound(f"nothing is served from {home} (no release yet): release a version first")
        async with node.following(home / "run" / "stream.sock"):
            turning = asyncio.create_task(_turn_segments(log))
            try:
                yield gateway
            finally:
                await end_task(turning)


async def _turn_segments(log: PredictionLog) -> None:
    while True:
        await asyncio.sleep(_TURN_S / 10)
        log.turn(older_than_s=_TURN_S)


def _now_us() -> int:
    return time.time_ns() // 1000


def _log_failure(request_id: str, error: BaseException) -> None:
    trace = "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError):  # nobody listens any more: that must not stop what works
        sys.stderr.write(f"{request_id}: {trace}\n")
