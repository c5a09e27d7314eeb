"""The job as it really runs: in a process of its own, on a bundle of a builder's code."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from taut.adapters.blobs.local import LocalBlobs
from taut.adapters.jobs.process import ProcessJobs
from taut.core.errors import Exhausted, InvalidInput
from taut.lifecycle.features.compute import compute_in_job
from taut.ports.jobs import Limits
from taut.project.bundle import make_bundle
from taut.project.manifest import FeaturesSpec, FunctionRef

CODE = """
import time
import polars as pl
from helpers import AIRPORT

def departure(weather):
    return weather.group_by(AIRPORT, "hour").agg(pl.col("wind").mean().alias("wind_mean"))

def two(weather, planes):
    return weather.join(planes, how="cross").select("airport", "hour", pl.col("wind") * pl.col("seats"))

def raises(weather):
    raise KeyError("windd")

def lazily_wrong(weather):
    return weather.select("airport", "hour", pl.col("windd"))

def nonsense(weather):
    return {"wind": 3}

def hangs(weather):
    time.sleep(600)
"""


def spec(function: str, *sources: str) -> FeaturesSpec:
    return FeaturesSpec(
        name="departure", entity=("airport",), event_time="hour", sources=sources or ("weather",),
        function=FunctionRef("features", function),
    )  # fmt: skip


def compute(tmp_path: Path, wanted: FeaturesSpec, *, timeout_s: float = 60.0) -> pl.DataFrame:
    project = tmp_path / "project"
    project.mkdir()
    (project / "features.py").write_text(CODE)
    (project / "helpers.py").write_text('AIRPORT = "airport"\n')
    blobs = LocalBlobs(tmp_path / "blobs")
    at = datetime(2013, 1, 1, tzinfo=UTC)
    frames = {
        "weather": pl.LazyFrame(
            {"airport": ["LGA", "JFK", "JFK"], "hour": [at] * 3, "wind": [5.0, 1.0, 2.0]}
        ),
        "planes": pl.LazyFrame({"seats": [2.0]}),
    }
    if wanted.function.qualname == "two":
        frames["weather"] = frames["weather"].head(2)
    return compute_in_job(
        ProcessJobs(tmp_path / "jobs"), blobs, wanted, frames, bundle=blobs.put(make_bundle(project)), seed=1,
        limits=Limits(timeout_s=timeout_s), progress=None,
    )  # fmt: skip


def test_the_builders_function_runs_on_its_sources_in_their_order(tmp_path: Path) -> None:
    found = compute(tmp_path, spec("two", "weather", "planes"))
    assert found.select("airport", "wind").rows() == [("JFK", 2.0), ("LGA", 10.0)]


def test_what_the_function_imports_comes_from_the_bundle_and_the_result_is_sorted(tmp_path: Path) -> None:
    found = compute(tmp_path, spec("departure"))
    assert found.select("airport", "wind_mean").rows() == [("JFK", 1.5), ("LGA", 5.0)]
    assert found.schema["hour"] == pl.Datetime("us", "UTC")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("raises", "raises raised KeyError: 'windd'"),
        ("lazily_wrong", "windd"),
        ("nonsense", "returned dict, not a polars frame"),
        ("absent", "no function 'absent'"),
    ],
)
def test_a_function_that_fails_is_told_to_the_builder_in_his_words(
    tmp_path: Path, function: str, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        compute(tmp_path, spec(function))


def test_a_function_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(Exhausted, match="allow more time"):
        compute(tmp_path, spec("hangs"), timeout_s=3.0)
