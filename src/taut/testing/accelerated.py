"""A process that forks workers on a machine with simulated accelerators: `python -P -m taut.testing.accelerated`.

It confines nobody: workers look into the file of faults.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from taut.serving.runtime import Cost
from taut.serving.workers.zygote import run
from taut.testing.placement import SimulatedHost


def accelerated_zygote(
    costs: Mapping[str, Cost], fault_file: Path
) -> Callable[[int], subprocess.Popen[bytes]]:
    """Return what starts such a process. costs, fault_file: as `SimulatedHost` takes them."""

    def start(descriptor: int) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-P", "-m", "taut.testing.accelerated", "--fd", str(descriptor),
            "--costs", json.dumps(msgspec.to_builtins(dict(costs))), "--faults", str(fault_file),
        ]  # fmt: skip
        return subprocess.Popen(command, pass_fds=[descriptor], stdin=subprocess.DEVNULL)

    return start


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--costs", required=True)
    parser.add_argument("--faults", type=Path, required=True)
    arguments = parser.parse_args()
    costs = msgspec.json.decode(arguments.costs, type=dict[str, Cost])
    host = SimulatedHost(costs, fault_file=arguments.faults)
    run(socket.socket(fileno=arguments.fd), lambda _order: None, host)
    return 0


if __name__ == "__main__":
    sys.exit(main())
