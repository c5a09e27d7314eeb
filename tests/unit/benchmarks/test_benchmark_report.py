"""Benchmarks' figures: a missed one is named, and what cannot be judged is no silent success."""

import io
import json
from pathlib import Path

import msgspec
import pytest
from benchmarks.report import Report, meets
from benchmarks.results import Part, Run, keep, parts_of, renew_table
from rich.console import Console


@pytest.mark.parametrize(
    ("value", "wanted", "ok"),
    [
        (1.5, "≥ 1.5×", True), (1.49, "≥ 1.5×", False), (8.0, "≤ 8 µs", True), (8.1, "≤ 8", False),
        (50_000, "≥ 50,000", True), (49_999, "≥ 50,000", False), (2.0, "< 2", False), (900, "≤ 1000, aim 50", True),
        (1_001, "≤ 1000, aim 50", False), (2, "≤ 3 for the whole platform", True), (0.6, "> 0.5", True),
    ],
)  # fmt: skip
def test_a_value_is_held_against_what_is_wanted(value: float, wanted: str, ok: bool) -> None:
    assert meets(value, wanted) is ok


@pytest.mark.parametrize("wanted", ["fast", "about 5", "≥ many"])
def test_a_wanted_value_that_says_no_comparison_breaks_the_benchmark(wanted: str) -> None:
    with pytest.raises(ValueError, match="no comparison"):
        Report().figure("x", [1.0], "s", wanted=wanted)


@pytest.mark.parametrize("values", [[], [1.0, float("inf")], [float("nan")]])
def test_what_is_no_number_breaks_the_benchmark_since_no_file_could_keep_it(values: list[float]) -> None:
    with pytest.raises(ValueError, match="no number"):
        Report().figure("x", values, "s")


def test_a_missed_figure_is_marked_and_listed_by_its_median() -> None:
    report = Report()
    report.bench = "data"
    report.figure("slow thing", [9.0, 7.0, 10.0], "µs", wanted="≤ 8 µs")
    report.figure("fast thing", [1.0, 2.0, 90.0], "µs", wanted="≤ 8 µs")
    report.figure("free thing", [5.0], "µs")
    assert [row.name for row in report.missed()] == ["slow thing"]
    said = io.StringIO()
    report.show(Console(file=said, width=200))
    assert "✗ missed: slow thing: 9 µs, wanted ≤ 8 µs" in said.getvalue()
    assert "3 lines, 2 with a wanted value, 1 of them missed" in said.getvalue()


def test_a_ratio_is_taken_pair_by_pair_and_above_one_means_that_taut_wins() -> None:
    report = Report()
    report.ratio("time", [1.0, 2.0, 4.0], [2.0, 4.0, 4.0], "s", wanted="≥ 1.5×")
    report.ratio("rate", [10.0], [5.0], "/s", more_is_better=True)
    medians = [msgspec.to_builtins(row)["median"] for row in report.rows]
    assert medians == [2.0, 2.0]
    with pytest.raises(ValueError, match="needs pairs"):
        report.ratio("odd", [1.0], [], "s")


def part(value: float, *, bench: str = "serving", began: str = "2026-11-21 10:00 UTC") -> dict[str, Part]:
    report = Report()
    report.bench = bench
    report.figure("a | b", [value, 3.0, value], "ms", wanted="≤ 1")
    report.missing("the gateway under load", "wrk is not installed")
    return parts_of(report, Run(began=began, load=0.1), seconds={bench: 12.3})


def test_a_run_leaves_its_figures_for_machines_and_for_people(tmp_path: Path) -> None:
    parts = keep(tmp_path / "results.json", part(2.0), known=["serving"])
    document = json.loads((tmp_path / "results.json").read_text())["serving"]
    assert document["figures"][0]["missed"] is True
    assert document["figures"][1]["missing"] == "wrk is not installed"
    assert {"cpu", "cores", "memory_gib", "python"} <= set(document["machine"])
    page = tmp_path / "README.md"
    page.write_text(
        "before\n<!-- results: written by `make bench` -->\nold\n<!-- end of results -->\nafter\n"
    )
    for _ in range(2):
        renew_table(parts, page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert text.count("| ✗ | a \\| b | 2 ms | 2 … 3 | ≤ 1 |") == 1
    assert "not measured" in text
    assert "**serving** (2026-11-21 10:00 UTC, load 0.1 a core when its run began)" in text
    page.write_text("no marks")
    with pytest.raises(ValueError, match="lacks"):
        renew_table(parts, page)


def test_a_part_that_was_measured_alone_replaces_its_own_figures_only(tmp_path: Path) -> None:
    path, known = tmp_path / "results.json", ["data", "serving"]
    keep(path, {**part(2.0), **part(5.0, bench="data"), **part(6.0, bench="gone")}, known=[*known, "gone"])
    parts = keep(path, part(0.5, began="2026-11-22 10:00 UTC"), known=known)
    assert {name: found.figures[0]["median"] for name, found in parts.items()} == {
        "data": 5.0,
        "serving": 0.5,
    }
    assert {name: found.began[:10] for name, found in parts.items()} == {
        "data": "2026-11-21", "serving": "2026-11-22",
    }  # fmt: skip
