"""How what is watched of models looks to Prometheus, and that its page names each figure."""

from __future__ import annotations

from pathlib import Path

from taut.entrypoints.monitor_view import model_families
from taut.lifecycle.monitoring import ColumnFigures, Figures, Quality, Shift, Tolerance

PAGE = Path(__file__).parents[3] / "docs/how-to/watch-a-model.md"
FIGURES = Figures(
    version="late@1", rows=500, window_rows=400, window_s=86_400.0, tolerance=Tolerance(), outliers=0.1, stale_s=60.0,
    quality=Quality(usual=0.8, estimated=0.75, right=None, labelled=0, tolerated=0.75, confidence=0.9),
    columns=(
        ColumnFigures(
            column="temp", source="sky", state="drifted", faults=(0.25, 0.0, 0.5), since_s=1.0,
            shift=Shift(column="temp", value=0.6, lower=0.4, upper=0.8, event="at most 3: -60%", psi=1.0),
        ),
    ),
)  # fmt: skip


def test_every_figure_is_shown_by_endpoint_version_and_column_and_its_page_names_it() -> None:
    families = list(model_families({("late", "late@1"): FIGURES}))
    page = PAGE.read_text()
    names = {one.name + ("_total" if one.type == "counter" else "") for one in families}
    assert not [name for name in names if name.removesuffix("_total") not in page]
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for one in families
        for sample in one.samples
    }
    own = (("endpoint", "late"), ("version", "late@1"))
    column = (("column", "temp"), *own)
    assert samples["taut_model_rows_total", *own] == 500
    assert samples["taut_model_drift", *column] == 2
    assert samples["taut_model_shift", *column] == 0.6
    assert samples["taut_model_shift_at_least", *column] == 0.4
    assert (
        samples["taut_model_fault_share", ("column", "temp"), ("endpoint", "late"), ("fault", "null"), own[1]]
        == 0.25
    )
    assert samples["taut_model_right", ("by", "confidence"), *own] == 0.75
    assert (
        "taut_model_right",
        ("by", "outcomes"),
        *own,
    ) not in samples  # nothing is known, so nothing is said


def test_without_anything_watched_there_is_no_line() -> None:
    assert [sample for one in model_families({}) for sample in one.samples] == []
