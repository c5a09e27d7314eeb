"""Asking the data plane without a platform running: one guarded answer from the snapshot that lies in the home."""

from __future__ import annotations

import asyncio
import os
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final

from taut.core.errors import Corrupt, NotFound, Unavailable
from taut.entrypoints.errors import DATA_PLANE

NAME: Final = "command"
"""Name of the prediction log's writer; the home's lock keeps it to one process."""

_SEGMENT_BYTES: Final = 1 << 20


def ask_embedded(
    home: Path, path: str, headers: Mapping[str, str], body: bytes
) -> tuple[int, dict[str, str], bytes]:
    """Send one request through a whole gateway in this process and return status, headers and body.

    The answer passes the same guard and is recorded in the prediction log before it is returned. Call it while the
    home's lock is held. Raises NotFound when nothing was ever released, Corrupt when what should be
    served was changed.
    """
    return asyncio.run(_ask(home.resolve(), path, headers, body))


async def _ask(
    home: Path, path: str, headers: Mapping[str, str], body: bytes
) -> tuple[int, dict[str, str], bytes]:
    from taut.bootstrap.config import Config
    from taut.bootstrap.gateway import open_online_reader, system_random
    from taut.serving.gateway import Gateway, GatewayNode, World
    from taut.serving.predictions import PredictionLog
    from taut.serving.snapshot import SnapshotStore, TrustFile

    random = system_random()
    with (
        ThreadPoolExecutor(1, thread_name_prefix="batch") as pool,
        open_online_reader(Config.load(home, os.environ)) as online,
        closing(
            PredictionLog(
                home / "log" / "predictions", NAME, now_us=_now_us, monotonic_s=time.monotonic, random=random,
                segment_bytes=_SEGMENT_BYTES,
            )
        ) as log,
    ):  # fmt: skip
        gateway = Gateway(
            log=log, online=online, statuses=DATA_PLANE,
            world=World(_now_us, time.monotonic, time.perf_counter_ns, random), pool=pool, log_failure=_fail,
        )  # fmt: skip
        trust = TrustFile(home / "serving" / "trust.json")
        store = SnapshotStore(home / "serving", trust)
        node = GatewayNode(gateway, home=home, name=NAME, store=store, trust=trust, random=random)
        await node.start_from_disk()
        if gateway.active is None and gateway.refused_snapshot:
            raise Corrupt(
                f"what {home} serves is not what was signed, so nothing is answered ({gateway.refused_snapshot}): release "
                "the version again, or start `taut up`, which makes it anew from the registry"
            )
        if gateway.active is None:
            raise NotFound(
                f"nothing is served from {home} (no release yet): release a version first, "
                "`taut release start ENDPOINT VERSION`"
            )
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        found = gateway.answer("POST", path, raw, body)
        reply = await found if asyncio.iscoroutine(found) else found
    answered = {name.decode(): value.decode() for name, value in reply.header_list()}
    return reply.status, answered, reply.body


def _now_us() -> int:
    return time.time_ns() // 1000


def _fail(request_id: str, error: BaseException) -> None:
    said = "".join(traceback.format_exception_only(error)).strip()
    raise Unavailable(f"the answer to {request_id} failed: {said}") from error
