"""How a pool follows the load is declared, and what makes no sense is refused in words."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from taut.core.errors import InvalidInput
from taut.project.freeze import check_references
from taut.project.load import load_project
from taut.project.manifest import AutoscaleSpec, Manifest


def declared(folder: Path, *lines: str) -> Manifest:
    (folder / "project.py").write_text("\n".join(["import taut", *lines]))
    return load_project(folder / "project.py").manifest


def test_an_autoscaler_is_part_of_the_project_and_aims_at_processors_where_nothing_else_is_said(
    tmp_path: Path,
) -> None:
    plain = declared(tmp_path, 'taut.Autoscale("gateway", maximum=4)')
    aimed = declared(tmp_path, 'taut.Autoscale("gateway", minimum=2, maximum=4, wait="5ms", latency=0.8)')

    assert plain.autoscalers == (AutoscaleSpec(name="gateway", maximum=4, cpu=0.7),)
    assert aimed.autoscalers == (
        AutoscaleSpec(name="gateway", minimum=2, maximum=4, wait="5ms", latency=0.8),
    )
    assert plain.digest != aimed.digest != declared(tmp_path, "taut.Project()").digest


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('taut.Autoscale("gateways", maximum=4)', "did you mean 'gateway'"),
        ('taut.Autoscale("gateway", minimum=5, maximum=4)', "minimum 5 and maximum 4"),
        ('taut.Autoscale("gateway", minimum=0, maximum=4)', "minimum is 0"),
        ('taut.Autoscale("gateway", maximum=65)', "maximum is 65"),
        ('taut.Autoscale("gateway", maximum=4, cpu=0)', "cpu is 0"),
        ('taut.Autoscale("gateway", maximum=4, window="0s")', "window is '0s'"),
        ('taut.Autoscale("gateway", maximum=4, cooldown="1d")', "at most two hours"),
        ('taut.Autoscale("gateway", maximum=4)\ntaut.Autoscale("gateway", maximum=5)', "gateway"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        declared(tmp_path, line)


def test_control_checks_again_what_it_was_sent(tmp_path: Path) -> None:
    sent = msgspec.convert({"autoscalers": [{"name": "moon", "minimum": 3, "maximum": 2}]}, Manifest)
    found = [said for _, _, said in check_references(sent)]

    assert any("there is no pool 'moon'" in said for said in found)
    assert any("minimum 3 and maximum 2" in said for said in found)
    assert any("nothing is aimed at" in said for said in found)
