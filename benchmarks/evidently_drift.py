"""Evidently's drift of a data set by its defaults, in an environment that has it: prints seconds and version as JSON.

`python -m benchmarks.evidently_drift REFERENCE.parquet CURRENT.parquet`; no part of taut is imported.
Evidently 0.7.23 needs pandas below 3.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module


def main(reference: str, current: str) -> None:
    # by name: the environment of the checks has neither
    evidently, presets, pandas = map(import_module, ("evidently", "evidently.presets", "pandas"))
    one, other = pandas.read_parquet(reference), pandas.read_parquet(current)
    began = time.process_time()
    evidently.Report([presets.DataDriftPreset()]).run(other, one)
    print(json.dumps({"seconds": time.process_time() - began, "version": evidently.__version__}))


if __name__ == "__main__":
    main(*sys.argv[1:])
