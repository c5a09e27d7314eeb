"""Serving beside other products: the guarded gateway against servers that guard nothing, with the same model and rows.

Each rival runs from an environment of its own (`.venvs/rivals-NAME`, made from its hash lock by `make bench`), as its
documentation says, with one process that answers; of the forms that were tried the fastest is here. Servers run one at a
time beside the gateway: a rival is started, checked to give the same probabilities, warmed, measured right before or right
after the gateway, and ended; all rivals in a shuffled order, and all of it again. A ratio is of such neighbours in time,
since machines speed up and slow down within seconds. CPU is of the whole process tree, since some rivals answer from
several processes.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from benchmarks import procs, wrk
from benchmarks.demo_run import free_port
from benchmarks.planes import INFER, Server, bodies, gateway, on_uvicorn, plane_of, row, train
from benchmarks.wrk import Cell, Sample, middle

if TYPE_CHECKING:
    from benchmarks.report import Report

ROOT: Final = Path(__file__).parents[1]
PROGRAMS: Final = Path(__file__).parent / "rivals"
ROUNDS, SECONDS, START_S = 3, 2, 90


class Rival(msgspec.Struct, frozen=True):
    """A server to measure. command: its first word is looked up in the rival's own environment; none is on uvicorn, here."""

    name: str
    title: str
    wanted: str
    command: tuple[str, ...] = ()
    path: str = "/predict"
    body: str = "bare-1"
    note: str = ""


RIVALS: Final = (
    Rival("bare", "the raw ASGI floor", "≥ 0.6"),
    Rival("fast", "bare FastAPI", "≥ 2"),
    Rival("mlserver", "MLServer", "≥ 4.5", ("mlserver", "start", "{folder}"), INFER, "v2-1", "in process"),
    Rival("litserve", "LitServe", "≥ 11", ("python", str(PROGRAMS / "litserve_app.py"))),
    Rival(
        "bentoml", "BentoML", "≥ 18",
        ("bentoml", "serve", "bentoml_service:Plain", "--host", "127.0.0.1", "-p", "{port}"),
    ),
    Rival("ray", "Ray Serve", "≥ 50", ("python", str(PROGRAMS / "ray_app.py"))),
)  # fmt: skip


def run(report: Report) -> None:
    if not wrk.installed():
        report.missing("the gateway beside other products", wrk.NO_WRK)
        return
    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        work = Path(folder)
        (work / "model.onnx").write_bytes(train())
        present = [rival for rival in RIVALS if installed(report, rival)]
        found = _measure(report, work, present)
    for rival in present:
        if found[rival.name]:
            _tell(report, rival, found[rival.name])


def _title(rival: Rival) -> str:
    return f"gateway, one row, all guards, against {rival.title}, unguarded"


def installed(report: Report, rival: Rival, *, root: Path = ROOT) -> bool:
    """Whether a rival can be run; where not, the table says why."""
    stamp = root / ".venvs" / f"rivals-{rival.name}" / "rival.stamp"
    if not rival.command or stamp.exists():
        return True
    log = stamp.with_name("install.log")
    why = log.read_text().strip()[-300:] if log.exists() else 'make bench ONLY="rivals" installs it'
    report.missing(_title(rival), f"it is not installed: {why}")
    return False


def _measure(report: Report, work: Path, rivals: list[Rival]) -> dict[str, list[tuple[Sample, Sample, int]]]:
    """Return, by rival, pairs of neighbours in time: the gateway's sample and the rival's."""
    files, plane = bodies(work), plane_of(work / "home", train())
    order, dice = list(rivals), random.Random(1)
    found: dict[str, list[tuple[Sample, Sample, int]]] = {rival.name: [] for rival in rivals}
    with gateway(plane.home) as ours:
        cell = ours.cell(INFER, files["v2-1"], bearer=plane.token(ttl_s=7200))
        cell.measure(seconds=2)
        for turn in range(ROUNDS):
            dice.shuffle(order)
            for rival in order:
                body = files[rival.body]
                try:
                    with _running(rival, work, body.read_bytes()) as server:
                        other = server.cell(rival.path, body)
                        pair = _side_by_side(cell, other, turn)
                        processes = len(procs.tree(server.pid))
                except AssertionError as error:  # a rival that does not come up, or fails, stops no other
                    report.missing(_title(rival), f"in one round: {str(error)[:300]}")
                    continue
                found[rival.name].append((*pair, processes))
                print(f"  {rival.title}: {_said(*pair)}", flush=True)
    return found


def _side_by_side(mine: Cell, theirs: Cell, turn: int) -> tuple[Sample, Sample]:
    """Measure one right after the other, the first of them in turn; both are warm."""
    theirs.measure(seconds=1)
    mine.measure(seconds=1)
    if turn % 2:
        other = theirs.quietly(seconds=SECONDS)
        return mine.quietly(seconds=SECONDS), other
    return mine.quietly(seconds=SECONDS), theirs.quietly(seconds=SECONDS)


def _said(mine: Sample, theirs: Sample) -> str:
    return (
        f"{mine.per_s:,.0f} against {theirs.per_s:,.0f} req/s, CPU {mine.cpu_us:.0f} and {theirs.cpu_us:,.0f} µs, "
        f"others {mine.foreign:.2f} and {theirs.foreign:.2f} core"
    )


def _tell(report: Report, rival: Rival, found: list[tuple[Sample, Sample, int]]) -> None:
    mine, theirs = [pair[0] for pair in found], [pair[1] for pair in found]
    processes = found[-1][2]
    foreign = max(one.foreign for one in (*mine, *theirs))
    own = f"{rival.note}; " if rival.note else ""
    note = (
        f"{own}{processes} process{'' if processes == 1 else 'es'}, {wrk.CONNECTIONS} connections; CPU {middle(mine, 'cpu_us'):.0f} and "
        f"{middle(theirs, 'cpu_us'):,.0f} µs a request; p50 {middle(mine, 'p50_us') / 1e3:.2f} and "
        f"{middle(theirs, 'p50_us') / 1e3:.2f} ms; others used up to {foreign:.2f} core meanwhile"
    )
    report.ratio(
        _title(rival), wrk.rates(mine), wrk.rates(theirs), "req/s", wanted=rival.wanted, note=note, more_is_better=True
    )  # fmt: skip


def _running(rival: Rival, work: Path, body: bytes) -> AbstractContextManager[Server]:
    if not rival.command:
        return on_uvicorn(rival.name, work / "model.onnx")
    return _own_environment(rival, work, body)


@contextmanager
def _own_environment(rival: Rival, work: Path, body: bytes) -> Iterator[Server]:
    """Run a rival from its own environment; yield when it gives the right answer. Raises AssertionError otherwise."""
    port, folder = free_port(), work / rival.name
    folder.mkdir(exist_ok=True)
    scripts = ROOT / ".venvs" / f"rivals-{rival.name}" / "bin"
    settings = {
        "name": "m",
        "implementation": "mlserver_model.Onnx",
        "max_batch_size": 0,
        "max_batch_time": 0,
    }
    (folder / "model-settings.json").write_text(json.dumps(settings))
    (folder / "settings.json").write_text(
        json.dumps({"debug": False, "parallel_workers": 0, "host": "127.0.0.1"})
    )
    first, *rest = (word.format(port=port, folder=folder) for word in rival.command)
    with tempfile.TemporaryDirectory(prefix="r") as short:  # sockets lie in it: their names are bounded
        environment = {
            "PATH": f"{scripts}:{os.environ['PATH']}", "HOME": str(folder), "PYTHONPATH": str(PROGRAMS),
            "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "PORT": str(port),
            "BENCH_MODEL": str(work / "model.onnx"), "MLSERVER_HTTP_PORT": str(port),
            "MLSERVER_GRPC_PORT": str(port + 1), "MLSERVER_METRICS_PORT": str(port + 2),
            "ORT_DISABLE_TELEMETRY": "1", "BENTOML_DO_NOT_TRACK": "true", "RAY_USAGE_STATS_ENABLED": "0", "RAY_FOLDER": short,
        }  # fmt: skip
        log = folder / "server.log"
        with (
            log.open("wb") as said,
            procs.running(
                [str(scripts / first), *rest],
                env=environment,
                cwd=folder,
                stdout=said,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            _await_right_answer(process, f"http://127.0.0.1:{port}{rival.path}", body, log)
            yield Server(process.pid, port)


def _await_right_answer(process: subprocess.Popen[bytes], url: str, body: bytes, log: Path) -> None:
    deadline, trouble = time.monotonic() + START_S, ""
    while True:
        assert process.poll() is None, f"it ended: {log.read_text()[-400:]}"
        assert time.monotonic() < deadline, (
            f"no answer within {START_S} s ({trouble}): {log.read_text()[-400:]}"
        )
        request = urllib.request.Request(url, data=body, headers={"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                got = json.loads(answer.read())
            break
        except OSError as error:
            trouble = str(error)
            time.sleep(0.2)
    flat = (
        got["outputs"][0]["data"]
        if "outputs" in got
        else [one for line in got["predictions"] for one in line]
    )
    wanted = _expected()
    assert len(flat) == len(wanted), f"it answers {len(flat)} numbers, the model {len(wanted)}"
    assert all(abs(a - b) < 1e-4 for a, b in zip(flat, wanted, strict=True)), (
        f"it answers {flat}, the model {wanted}"
    )


def _expected() -> list[float]:
    import numpy as np

    from taut.core.ort import load_onnxruntime, session_options

    session = load_onnxruntime().InferenceSession(train(), session_options())
    [line] = session.run(["probabilities"], {"input": np.asarray([row()], dtype=np.float32)})[0]
    return [float(value) for value in line]
