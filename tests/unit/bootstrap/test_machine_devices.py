"""What a machine is said to have: its cores as far as the control group gives them, and what TAUT_DEVICES says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from taut.bootstrap.config import Config
from taut.bootstrap.gateway import machine_cores, machine_devices
from taut.core.errors import InvalidInput

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", CORES), ("100000 100000", 1), ("50000 100000", 1), ("99900000 100000", CORES), ("", CORES),
        ("none of ours", CORES),
    ],
)  # fmt: skip
def test_a_control_group_s_quota_is_kept_to(quota: str, cores: int, tmp_path: Path) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(quota)

    assert machine_cores(path) == cores
    assert machine_cores(tmp_path / "absent") == CORES


def test_devices_come_from_the_environment_and_are_refused_in_words(tmp_path: Path) -> None:
    def config(said: str) -> Config:
        return Config.load(tmp_path, {"TAUT_DEVICES": said})

    assert [one.name for one in machine_devices(config("cuda:0=2.5")).accelerators] == ["cuda:0"]
    with pytest.raises(InvalidInput, match="has no price"):
        machine_devices(config("cuda:0"))
