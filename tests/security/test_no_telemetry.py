"""Nothing that taut loads tells its maker about it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import taut

_OPEN = """
import os
{how}
paths = [os.readlink(f"/proc/self/fd/{{one}}") for one in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{{one}}")]
print([path for path in paths if "onnxruntime" in path])
"""


def files_open_after(how: str, home: Path) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
    }  # a CI's own variable would switch it off too
    return subprocess.run(
        [sys.executable, "-P", "-c", _OPEN.format(how=how)], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()  # fmt: skip


@pytest.mark.parametrize("room", ["taut.serving.runtime", "taut.serving.workers.zygote"])
def test_onnxruntime_keeps_no_events_and_writes_nothing(room: str, tmp_path: Path) -> None:
    assert files_open_after(f"import {room}", tmp_path) == "[]"
    assert list(tmp_path.iterdir()) == []


def test_the_check_would_see_events_that_are_kept(tmp_path: Path) -> None:
    assert "onnxruntime.db" in files_open_after("import onnxruntime", tmp_path)


def test_onnxruntime_is_imported_in_one_place() -> None:
    source = Path(taut.__file__).parent
    importing = re.compile(r"^\s*(import|from) onnxruntime", re.MULTILINE)
    found = {
        str(path.relative_to(source)) for path in source.rglob("*.py") if importing.search(path.read_text())
    }

    assert found == {"core/ort.py"}
