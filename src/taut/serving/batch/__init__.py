"""Scoring many rows at once: columns become tensors, tensors become columns, and what does not fit is named row by row."""

from typing import TYPE_CHECKING

from taut.serving.batch.chunks import CHUNKS, MODEL, NODE, STOP, answer_path, chunk_path

if TYPE_CHECKING:
    from taut.serving.batch.answers import answer_columns, answer_schema
    from taut.serving.batch.frames import matrix, write_chunk
    from taut.serving.batch.rows import NO_ANSWER, REASONS, Needs, needs_of

__all__ = [
    "CHUNKS",
    "MODEL",
    "NODE",
    "NO_ANSWER",
    "REASONS",
    "STOP",
    "Needs",
    "answer_columns",
    "answer_path",
    "answer_schema",
    "chunk_path",
    "matrix",
    "needs_of",
    "write_chunk",
]

_CONTROL = {
    "NO_ANSWER": "rows",
    "REASONS": "rows",
    "Needs": "rows",
    "answer_columns": "answers",
    "answer_schema": "answers",
    "matrix": "frames",
    "needs_of": "rows",
    "write_chunk": "frames",
}


def __getattr__(name: str) -> object:
    """Import what control needs on first use: the job of a matrix model needs no Polars, which is slow to import."""
    if name not in _CONTROL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_CONTROL[name]}"), name)
