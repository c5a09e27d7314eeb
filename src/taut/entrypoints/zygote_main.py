"""The process that forks model workers for one gateway: `python -P -m taut.entrypoints.zygote_main --fd N`."""

from __future__ import annotations

import argparse
import gc
import socket
import sys
from typing import Final

from taut.bootstrap.artifacts import artifacts_digest, build_digest
from taut.bootstrap.sandbox import Rules, confine, enter_namespaces
from taut.serving.placement import OrtHost
from taut.serving.workers.worker import Order
from taut.serving.workers.zygote import run

_FILE_BYTES: Final = 2**30  # an answer of more than 64 KiB lies in an anonymous file
_ROWS_MAX: Final = 1_000_000  # far more than a batch has
_FILES_OF_DRIVERS: Final = 512
_CPU_SECONDS: Final = 2**31 - 1  # a worker serves for as long as it is well


def main() -> int:
    parser = argparse.ArgumentParser(prog="taut-zygote", description="forks model workers for one gateway")
    parser.add_argument("--fd", type=int, required=True, help="the gateway's end of the door, inherited")
    arguments = parser.parse_args()
    door = socket.socket(fileno=arguments.fd)
    build = build_digest(artifacts_digest())
    entered = enter_namespaces(processes=False)  # once for all: workers inherit them

    def confine_worker(order: Order) -> None:
        width = len(order.signature.classes) or 1
        rules = Rules(
            memory_bytes=order.memory_bytes, file_bytes=min(_FILE_BYTES, max(2**20, _ROWS_MAX * width * 8)), cpu_seconds=_CPU_SECONDS, max_tasks=64,
            max_files=_FILES_OF_DRIVERS if order.wish.paths else 64, alone=True, devices=order.wish.paths,
        )  # fmt: skip
        confine(rules, entered=entered)

    gc.freeze()  # what is imported now is shared with every worker for as long as nobody writes to it
    run(door, confine_worker, OrtHost(), build=build)
    return 0


if __name__ == "__main__":
    sys.exit(main())
