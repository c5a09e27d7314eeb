"""Chunks on their way to the job and answers on their way back: files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CHUNKS: Final = "chunks"
MODEL: Final = "model"
NODE: Final = "node-"
STOP: Final = "stop"
"""Names of the job's inputs, with what stands before those of a graph's nodes, and of the file that says that no further chunk will come."""


def chunk_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.chunk"


def answer_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.npy"
