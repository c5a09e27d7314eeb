"""Code models: a callable of a project as one file of signed source and plain data, and back to a callable apart."""

from taut.project.code.artifact import BYTES_MAX, CodeArtifact, open_code, pack_code
from taut.project.code.capture import capture, is_code, kind_of_code
from taut.project.code.revive import CodeFailed, Columns, Revived, answer_of, revive

__all__ = [
    "BYTES_MAX",
    "CodeArtifact",
    "CodeFailed",
    "Columns",
    "Revived",
    "answer_of",
    "capture",
    "is_code",
    "kind_of_code",
    "open_code",
    "pack_code",
    "revive",
]
