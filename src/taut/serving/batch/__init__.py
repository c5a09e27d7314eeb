"""Scoring many rows at once: columns become tensors, tensors become columns, and what does not fit is named row by row."""

from taut.serving.batch.answers import answer_columns, answer_schema
from taut.serving.batch.chunks import CHUNKS, MODEL, STOP, answer_path, chunk_path, read_answer, write_chunk
from taut.serving.batch.rows import REASONS, Needs, needs_of

__all__ = [
    "CHUNKS",
    "MODEL",
    "REASONS",
    "STOP",
    "Needs",
    "answer_columns",
    "answer_path",
    "answer_schema",
    "chunk_path",
    "needs_of",
    "read_answer",
    "write_chunk",
]
