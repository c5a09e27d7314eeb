"""The job that makes the variants of a model and measures each beside the original."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.errors import InvalidInput
from taut.core.ort import load_onnxruntime, session_options
from taut.core.schema import ModelSignature
from taut.lifecycle.training import judge
from taut.lifecycle.training.convert import answers_of, predictions
from taut.lifecycle.training.encode import feed, serving_form
from taut.lifecycle.training.job import environment
from taut.lifecycle.training.split import split_by_time
from taut.lifecycle.training.variants.forms import Feed, graph_optimised, head, quantised
from taut.lifecycle.training.variants.timing import interleaved_us
from taut.lifecycle.training.variants.values import VARIANTS, Figures, Variant
from taut.ports.jobs import JobContext
from taut.ports.tables import ROW_ID
from taut.project.manifest import SplitSpec

Array = npt.NDArray[Any]

BATCHES: Final = (1, 32)
CALIBRATION_ROWS: Final = 1000
_BUDGET_S: Final = 4.0
_ORIGINAL, _AGAIN = "original", "the original once more"


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of the job, as JSON: how the run split its rows, and what the model takes and gives."""

    event_time: str
    label: str
    label_at: str | None
    split: SplitSpec
    signature: ModelSignature


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """Held-out rows with labels, and tensors of training rows to calibrate with: no row is in both."""

    holdout: pl.DataFrame
    calibration: Feed
    calibration_rows: int


def make(
    arguments: dict[str, object], inputs: dict[str, Path], output: Path, context: JobContext
) -> dict[str, object]:
    """Make and measure every variant: `inputs` are `frame` and `parity` (Parquet) and `model`.

    Leaves `NAME.onnx` and `NAME.parquet`, what it says about the rows of `parity`, of each that could be made.
    """
    work = msgspec.convert(arguments, Work)
    context.progress("reading training and held-out rows", 0.02)
    rows = _rows(work, inputs["frame"])
    original = inputs["model"].read_bytes()
    made, notes = _make_all(original, rows, context)
    context.progress("measuring quality", 0.5)
    sessions = {name: _session(data) for name, data in {_ORIGINAL: original, **made}.items()}
    wanted = pl.read_parquet(inputs["parity"]).select(ROW_ID)
    figures, apart, said = {}, {}, {}
    for name, session in sessions.items():
        try:
            said[name] = _answers(work, session, rows.holdout)
            figures[name] = judge.scores(_truth(work, rows.holdout), said[name], work.signature.classes)
        except Exception as error:  # onnxruntime raises whatever; of a variant the note says it
            if name == _ORIGINAL:
                raise
            notes[name] = f"it does not answer the held-out rows: {_line(error)}"
            continue
        if name != _ORIGINAL:
            apart[name] = float(np.abs(said[name] - said[_ORIGINAL]).max())
            (output / f"{name}.onnx").write_bytes(made[name])
            _write_answers(said[name], rows.holdout, wanted, output / f"{name}.parquet")
    context.progress("measuring latency, each in turn", 0.6)
    latency, noise, rounds = _latency({name: sessions[name] for name in figures}, original, rows, work)
    context.progress("done", 1.0)

    def measured(name: str, size: int) -> Figures:
        return Figures(size_bytes=size, latency_us=latency[name], metrics=figures[name])

    variants = [
        Variant(name=name, note=notes[name], figures=measured(name, len(made[name])), apart=apart[name])
        if name in figures
        else Variant(name=name, note=notes[name])
        for name in VARIANTS
    ]
    return {
        "original": msgspec.to_builtins(measured(_ORIGINAL, len(original)), str_keys=True),
        "variants": msgspec.to_builtins(variants, str_keys=True),
        "noise": {str(rows): share for rows, share in noise.items()},
        "rounds": {str(rows): count for rows, count in rounds.items()},
        "holdout_rows": rows.holdout.height, "calibration_rows": rows.calibration_rows,
        "environment": msgspec.to_builtins(environment(1)),
    }  # fmt: skip


def _rows(work: Work, frame: Path) -> Rows:
    parts = split_by_time(
        pl.scan_parquet(frame), event_time=work.event_time, label=work.label, label_at=work.label_at,
        spec=work.split,
    )  # fmt: skip
    columns = [item.column for item in work.signature.inputs]
    names = [column.name for column in columns]
    step = max(1, -(-parts.facts.train // CALIBRATION_ROWS))
    learned = serving_form(parts.train.select(names).gather_every(step), columns).collect()
    holdout = serving_form(parts.test.select(ROW_ID, work.label, *names), columns).collect()
    calibration = feed(learned, columns, work.signature.tensor)
    return Rows(holdout=holdout, calibration=calibration, calibration_rows=learned.height)


def _make_all(model: bytes, rows: Rows, context: JobContext) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the variants that could be made, and a note on every one."""
    ways = {
        "graph": partial(graph_optimised, model),
        "int8-dynamic": partial(quantised, model, calibration=None),
        "int8-static": partial(quantised, model, calibration=rows.calibration),
    }
    made: dict[str, bytes] = {}
    notes: dict[str, str] = {}
    for number, (name, way) in enumerate(ways.items()):
        context.progress(f"making {name}", 0.1 + 0.4 * number / len(ways))
        try:
            data, notes[name] = way()
            _session(data)
        except InvalidInput as error:
            notes[name] = str(error)
        except Exception as error:  # noqa: BLE001 - the tools raise whatever a graph makes them meet; the note says it
            notes[name] = f"it cannot be made of this model ({type(error).__name__}: {_line(error)})"
        else:
            made[name] = data
    return made, notes


def _session(model: bytes) -> Any:
    ort = load_onnxruntime()
    return ort.InferenceSession(model, session_options(), providers=["CPUExecutionProvider"])


def _truth(work: Work, holdout: pl.DataFrame) -> Array:
    return judge.truth_of(holdout[work.label], work.signature.classes)


def _answers(work: Work, session: Any, rows: pl.DataFrame) -> Array:
    columns = [item.column for item in work.signature.inputs]
    found = predictions(session, rows, columns, work.signature.tensor)
    return np.stack([1 - found, found], axis=1) if work.signature.classes and found.ndim == 1 else found


def _write_answers(said: Array, holdout: pl.DataFrame, wanted: pl.DataFrame, path: Path) -> None:
    wide = said.reshape(len(said), -1)
    answers = pl.DataFrame(
        {ROW_ID: holdout[ROW_ID], **{f"p{at}": wide[:, at] for at in range(wide.shape[1])}}
    )
    answers.join(wanted, on=ROW_ID, how="semi").write_parquet(path)


def _latency(
    sessions: dict[str, Any], original: bytes, rows: Rows, work: Work
) -> tuple[dict[str, dict[int, float]], dict[int, float], dict[int, int]]:
    """Time all sessions for each batch size, the original twice: what these two differ by is noise."""
    timed = {**sessions, _AGAIN: _session(original)}
    columns: Sequence[Any] = [item.column for item in work.signature.inputs]
    sample = feed(rows.holdout.head(max(BATCHES)), columns, work.signature.tensor)
    latency: dict[str, dict[int, float]] = {name: {} for name in sessions}
    noise, rounds = {}, {}
    for count in BATCHES:
        given = head(sample, count)
        runs = {name: partial(session.run, answers_of(session), given) for name, session in timed.items()}
        found, rounds[count] = interleaved_us(runs, budget_s=_BUDGET_S)
        one, other = found[_ORIGINAL], found.pop(_AGAIN)
        noise[count] = round(abs(one - other) / min(one, other), 4)
        found[_ORIGINAL] = min(one, other)  # the faster of the two: a gain is never owed to a slow original
        for name, value in found.items():
            latency[name][count] = value
    return latency, noise, rounds


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
