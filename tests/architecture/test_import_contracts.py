"""The import contracts hold, and each is shown to fail on a planted breach."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BREACHES = {
    "floors": ("core/breach.py", "import taut.trust\n"),
    "stages": ("lifecycle/data/breach.py", "import taut.lifecycle.training\n"),
    "adapters-know-ports": ("adapters/breach.py", "import taut.trust\n"),
    "adapters-protected": ("entrypoints/breach.py", "import taut.adapters.breached\n"),
    "drivers": ("trust/breach.py", "import sqlite3\n"),
    "no-cycles": ("project/breach.py", "import taut.project.breach_too\n"),
}
SUPPORT = {
    "lifecycle/data/__init__.py": "",
    "lifecycle/training/__init__.py": "",
    "adapters/breached.py": "",
    "project/breach_too.py": "import taut.project.breach\n",
}


def lint(root: Path, contract: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--contract", contract, "--no-cache"],
        cwd=root, capture_output=True, text=True, env={"PYTHONPATH": str(root / "src"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the house's walls: the floors, empty, under the real contracts."""
    for floor in (ROOT / "src/taut").iterdir():
        if floor.is_dir() and floor.name != "__pycache__":
            (tmp_path / "src/taut" / floor.name).mkdir(parents=True)
            (tmp_path / "src/taut" / floor.name / "__init__.py").touch()
    (tmp_path / "src/taut/__init__.py").touch()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, body in SUPPORT.items():
        file = tmp_path / "src/taut" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(body if "breach_too" not in path else "")
    return tmp_path


def test_a_room_of_the_fleet_that_knows_the_data_plane_fails_the_build(house: Path) -> None:
    (house / "src/taut/fleet/breach.py").write_text("import taut.serving\n")

    after = lint(house, "floors")

    assert after.returncode == 1, after.stdout + after.stderr
    assert "taut.fleet.breach" in after.stdout


@pytest.mark.parametrize("contract", BREACHES)
def test_a_planted_breach_of_each_contract_fails_the_build(house: Path, contract: str) -> None:
    before = lint(house, contract)
    path, body = BREACHES[contract]
    (house / "src/taut" / path).write_text(body)
    (house / "src/taut/project/breach_too.py").write_text(SUPPORT["project/breach_too.py"])

    after = lint(house, contract)

    assert before.returncode == 0, before.stdout + before.stderr
    assert after.returncode == 1, after.stdout + after.stderr
    assert "breach" in after.stdout


def test_every_contract_has_a_planted_breach() -> None:
    import tomllib

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]

    assert {contract["id"] for contract in contracts} == set(BREACHES)
