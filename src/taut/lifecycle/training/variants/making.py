"""Having the variants of a model made in a job, on the run's own pinned rows."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from taut.core.errors import InvalidInput, NotFound
from taut.core.room import room_for
from taut.lifecycle.training.values import PARITY_FILE, Run, limits_of
from taut.lifecycle.training.variants.values import VARIANTS, Made, Variant
from taut.ports.blobs import Blobs
from taut.ports.jobs import JobEnd, Jobs, Progress, Task
from taut.ports.tables import Tables

_FUNCTION: Final = "taut.lifecycle.training.variants.job:make"


def make_variants(
    run: Run,
    model: str,
    *,
    blobs: Blobs,
    tables: Tables,
    jobs: Jobs,
    scratch: Path | None,
    progress: Progress | None = None,
) -> Made:
    """Make and measure the variants of a run's model, and keep their files in Blobs.

    model: the digest of the ONNX file. The rows are those that the run was trained and tested on, less what was erased
    since: the training part calibrates, the held-out part measures. Doing it again keeps the same files once.
    Raises NotFound when the run left no model; InvalidInput when the job fails, saying how.
    """
    report, parity = run.report, run.artifact(PARITY_FILE)
    if report is None or parity is None:
        raise NotFound(f"run {run.id} left no model: its state is {run.state}")
    arguments = {
        "event_time": run.data.event_time, "label": run.spec.label, "label_at": run.spec.label_at,
        "split": run.spec.split, "signature": report.signature,
    }  # fmt: skip
    with (
        room_for(f"the variants of {run.id}"),
        tempfile.TemporaryDirectory(prefix="taut-variants-", dir=scratch) as folder,
        ExitStack() as stack,
    ):
        frame = Path(folder, "frame.parquet")
        tables.scan(run.data.table, row_ids=True).sink_parquet(frame, compression="zstd")
        local = {"model": model, "parity": parity.digest}
        inputs = {name: str(stack.enter_context(blobs.local(digest))) for name, digest in local.items()}
        task = Task(
            function=_FUNCTION,
            arguments=msgspec.to_builtins(arguments),
            inputs={"frame": str(frame), **inputs},
            limits=limits_of(run.spec.resources),
        )
        output = Path(folder, "output")
        result = jobs.run(task, output=output, progress=progress)
        if result.end is not JobEnd.DONE:
            raise InvalidInput(f"the variants of {run.id} were not made: {result.end}: {result.error}")
        made = _accepted({**result.value, "isolation": list(result.isolation)})
        kept = tuple(_kept(blobs, variant, output) for variant in made.variants)
    return msgspec.structs.replace(made, variants=kept)


def _accepted(value: dict[str, object]) -> Made:
    """Check what the job says: it had a builder's model in its process."""
    try:
        made = msgspec.convert(value, Made, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the job's result is not accepted: {error}") from error
    names, batches = [variant.name for variant in made.variants], set(made.original.latency_us)
    timed = [set(variant.figures.latency_us) for variant in made.variants if variant.figures is not None]
    if names != list(VARIANTS) or any(found != batches for found in [*timed, set(made.noise)]):
        raise InvalidInput(
            f"the job's result is not accepted: it tells of {', '.join(names)} with other figures"
        )
    return made


def _kept(blobs: Blobs, variant: Variant, output: Path) -> Variant:
    if variant.figures is None:
        return variant
    model = output / f"{variant.name}.onnx"
    figures = msgspec.structs.replace(variant.figures, size_bytes=model.stat().st_size)
    return msgspec.structs.replace(
        variant, figures=figures, model=blobs.put_file(model),
        parity=blobs.put_file(output / f"{variant.name}.parquet"),
    )  # fmt: skip
