"""One open-loop run against a gateway, in a process of its own: `python -m benchmarks.open_loop '{…}'` prints JSON.

Arrivals are Poisson's and go out when they are due, whatever was answered; latencies count from the due moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

import uvloop

from taut.entrypoints.load import Address, Driver


def arrivals(rate: float, seconds: float, request: bytes, seed: int) -> Iterator[tuple[float, bytes]]:
    dice, at_s = random.Random(seed), 0.0
    while (at_s := at_s + dice.expovariate(rate)) < seconds:
        yield at_s, request


async def drive(given: dict[str, Any]) -> dict[str, Any]:
    body = given["body"].encode()
    head = (
        f"POST {given['path']} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {given['bearer']}\r\ntaut-deadline-ms: {given['deadline_ms']}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    driver = Driver(
        Address("127.0.0.1", given["port"]),
        arrivals(given["rate"], given["seconds"], head.encode() + body, given["seed"]),
        connections_max=1024,
        expected_s=given["seconds"],
    )
    found = await driver.run(lambda *_: None)
    fine = found.by_status.get(200)
    return {
        "offered": found.offered,
        "seconds": given["seconds"],
        "good": 0 if fine is None else fine.count,
        "p50_us": 0 if fine is None else fine.percentile(50),
        "p99_us": 0 if fine is None else fine.percentile(99),
        "by_status": {str(status): one.count for status, one in found.by_status.items()},
        "errors": dict(found.errors),
        "cpu_s": found.cpu_s,
        "late_us": found.lateness.percentile(99),
    }


if __name__ == "__main__":
    # it stands for other machines: where it is allowed to, it goes before the server on this one, and its time is lost to that
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    print(json.dumps(uvloop.run(drive(json.loads(sys.argv[1])))))
