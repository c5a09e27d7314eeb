"""Reading segments of the prediction log while their writers close them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

_READ = """
import sys
from pathlib import Path
from taut.serving.predictions.reader import _read
for _ in range(150):
    assert _read(Path(sys.argv[1])) is not None
"""


def test_a_segment_that_is_cut_while_it_is_read_ends_nobody(tmp_path: Path) -> None:
    """In a process of its own: where the file were mapped, the kernel would end it with SIGBUS within a few reads."""
    path, size, done = tmp_path / "gateway-0.1.open", 16 * 2**20, threading.Event()
    path.write_bytes(bytes(4096))

    def cut() -> None:
        with path.open("r+b") as file:
            while not done.is_set():
                os.ftruncate(file.fileno(), size)
                os.ftruncate(file.fileno(), 4096)

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        found = subprocess.run(
            [sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, timeout=120, check=False
        )
    finally:
        done.set()
        cutter.join()

    assert found.returncode == 0, found
