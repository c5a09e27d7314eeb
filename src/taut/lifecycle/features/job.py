"""The job that runs a builder's feature function on files, away from everything else."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from taut.core.errors import InvalidInput
from taut.lifecycle.features.shape import MESSAGE_MAX, shaped
from taut.ports.jobs import JobContext
from taut.project.bundle import load_function
from taut.project.manifest import FeaturesSpec

OUTPUT: Final = "features.parquet"


def compute(
    arguments: dict[str, object], inputs: dict[str, Path], output: Path, context: JobContext
) -> dict[str, object]:
    """Run the function of `arguments["spec"]` on the Parquet files of its sources and write the shaped result.

    inputs: `bundle`, and `source-N` for the N-th source.
    Raises InvalidInput when the function raises or returns what is no feature set.
    """
    spec = msgspec.convert(arguments["spec"], FeaturesSpec)
    with tempfile.TemporaryDirectory() as scratch:
        function = load_function(inputs["bundle"], spec.function, into=Path(scratch) / "code")
        context.progress(f"computing {spec.name}", 0.1)
        frames = [pl.scan_parquet(inputs[f"source-{index}"]) for index in range(len(spec.sources))]
        try:
            result = function(*frames)
        except Exception as error:  # the builder's code may raise anything; he is told what
            raise InvalidInput(
                f"feature set {spec.name!r}: {spec.function.qualname} raised {type(error).__name__}: "
                f"{str(error)[:MESSAGE_MAX]}"
            ) from error
        frame = shaped(result, spec)
    context.progress(f"writing {frame.height:,} rows", 0.9)
    frame.write_parquet(output / OUTPUT)
    return {"rows": frame.height}
