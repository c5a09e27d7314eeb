"""The whole story on real data, as `make run` tells it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_every_claim_of_the_demo_holds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "taut.entrypoints.cli", "--json", "demo", "--exit", "--port", "0"]

    told = subprocess.run(
        [*command, "--folder", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )

    assert told.returncode == 0, told.stderr[-4000:]
    document = json.loads(told.stdout)
    assert document["ok"]
    assert len(document["steps"]) == 15
    assert all(step["ok"] and step["claim"] and step["figures"] for step in document["steps"])
