"""The load generator `wrk`, one cell at a time: one server, one body, and what its process tree spent on it."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import procs

CONNECTIONS: Final = 16
NO_WRK: Final = "wrk is not installed: apt-get install wrk, brew install wrk, or make in its source"
_FOREIGN_MAX: Final = 0.15  # cores that others may use before a cell is measured again
_TRIES: Final = 3
# BODY: the file with the body; BODIES: a file with many, each after a line with its length, drawn at random
_SCRIPT: Final = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
if os.getenv("JSON_BYTES") then wrk.headers["Inference-Header-Content-Length"] = os.getenv("JSON_BYTES") end
if os.getenv("BEARER") then wrk.headers["Authorization"] = "Bearer " .. os.getenv("BEARER") end
if os.getenv("BODY") then
  local f = io.open(os.getenv("BODY"), "rb"); wrk.body = f:read("*a"); f:close()
else
  local requests = {}
  init = function()
    local f = io.open(os.getenv("BODIES"), "rb")
    for line in f:lines() do requests[#requests + 1] = wrk.format(nil, nil, nil, f:read(tonumber(line))) end
    f:close()
  end
  request = function() return requests[math.random(#requests)] end
end
done = function(s, l, r)
  local e = s.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\\n", s.requests, s.duration, l:percentile(50), l:percentile(99),
    e.connect + e.read + e.write + e.timeout, e.status))
end
"""


def installed() -> bool:
    return shutil.which("wrk") is not None


class Sample(msgspec.Struct, frozen=True):
    """One measurement. failed: requests without an answer (unanswered), or with a status from 400 up; only where they were allowed.

    foreign: cores that everything but server and client used meanwhile; cpu_us: of the server's process tree, a request.
    """

    requests: int
    per_s: float
    cpu_us: float
    p50_us: float
    p99_us: float
    failed: int
    foreign: float
    unanswered: int = 0


class Cell:
    """One server with one body.

    pid: the server, measured with all processes below it. body: a file with one body, or with many in the form that
    `write_bodies` gives. json_bytes: how many of its bytes are JSON where raw tensors follow.
    """

    def __init__(
        self,
        pid: int,
        url: str,
        body: Path,
        *,
        bearer: str = "",
        json_bytes: int = 0,
        many: bool = False,
        connections: int = CONNECTIONS,
    ) -> None:
        self.pid: Final = pid
        self._url: Final = url
        self._connections: Final = connections
        self._environment: Final = {
            "BODIES" if many else "BODY": str(body), "PATH": os.environ["PATH"],
            **({"BEARER": bearer} if bearer else {}), **({"JSON_BYTES": str(json_bytes)} if json_bytes else {}),
        }  # fmt: skip

    def measure(self, *, seconds: int, may_fail: bool = False) -> Sample:
        """Load the server for some seconds. Raises AssertionError when a request fails, unless it may."""
        pids = procs.tree(self.pid)
        mine = os.times()
        before, busy = sum(map(procs.cpu_s, pids)), procs.machine_cpu_s()
        said = subprocess.run(
            [
                "wrk", "-t1", f"-c{self._connections}", f"-d{seconds}s", "-s", str(_script()), self._url,
            ],
            env=self._environment, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        used = sum(map(procs.cpu_s, pids)) - before
        after = os.times()
        spent = (after.user + after.system + after.children_user + after.children_system) - (
            mine.user + mine.system + mine.children_user + mine.children_system
        )
        others = procs.machine_cpu_s() - busy - used - spent
        match = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", said)
        assert match is not None, said
        requests, wall_us, p50_us, p99_us, unanswered, refused = map(int, match.groups())
        failed = unanswered + refused
        assert may_fail or not failed, f"{unanswered} requests were not answered, {refused} refused: {said}"
        per_s = requests / wall_us * 1e6
        return Sample(
            requests, per_s, used / max(1, requests) * 1e6, p50_us, p99_us, failed, max(0.0, others / wall_us * 1e6),
            unanswered,
        )  # fmt: skip

    def quietly(self, *, seconds: int) -> Sample:
        """Measure, again while others use more than a seventh of a core, at most three times; the quietest counts."""
        found = [self.measure(seconds=seconds)]
        while found[-1].foreign > _FOREIGN_MAX and len(found) < _TRIES:
            found.append(self.measure(seconds=seconds))
        return min(found, key=lambda one: one.foreign)


def in_turn(cells: Mapping[str, Cell], *, repeats: int, seconds: int) -> dict[str, list[Sample]]:
    """Measure all cells one after the other, again and again, after each was warmed up for a second."""
    for cell in cells.values():
        cell.measure(seconds=1)
    found: dict[str, list[Sample]] = {name: [] for name in cells}
    for _ in range(repeats):
        for name, cell in cells.items():
            found[name].append(cell.quietly(seconds=seconds))
    return found


def rates(samples: Sequence[Sample]) -> list[float]:
    return [one.per_s for one in samples]


def middle(samples: Sequence[Sample], field: str) -> float:
    """Return the median of one field."""
    values: list[float] = [getattr(one, field) for one in samples]
    return statistics.median(values)


def write_bodies(path: Path, bodies: Sequence[bytes]) -> Path:
    """Write bodies to be drawn at random, for a cell with `many`."""
    path.write_bytes(b"".join(b"%d\n%b" % (len(body), body) for body in bodies))
    return path


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="taut-bench-")  # gone when this process ends


@cache
def _script() -> Path:
    path = Path(_folder().name) / "post.lua"
    path.write_text(_SCRIPT)
    return path
