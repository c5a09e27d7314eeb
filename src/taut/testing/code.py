"""Code models for tests: a module's text and what to call in it, as the file that a training job leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from taut.core.schema import Column, DType, ModelInput, ModelSignature
from taut.project.archive import write_archive
from taut.project.code import CodeArtifact, pack_code
from taut.project.code.artifact import Document
from taut.project.code.needs import environment_of
from taut.project.code.state import freeze

MODULE: Final = "scoring"


def code_model(
    text: str,
    name: str = "score",
    *,
    kind: Literal["function", "partial", "object"] = "function",
    kwargs: Mapping[str, Any] | None = None,
    more: Mapping[str, str] | None = None,
) -> bytes:
    """Return the file of a code model: the module `scoring` of this text, and `name` of it.

    kwargs: what it is bound to. more: further files of its bundle.
    """
    files = {f"{MODULE}.py": text.encode(), **{path: body.encode() for path, body in (more or {}).items()}}
    state: dict[str, bytes] = {}
    document = Document(
        module=MODULE, name=name, kind=kind, args=freeze((), where="args", files=state),
        kwargs=freeze(dict(kwargs or {}), where="kwargs", files=state), **environment_of(files, MODULE),
    )  # fmt: skip
    return pack_code(CodeArtifact(document=document, bundle=write_archive(files), state=state))


def code_signature(width: int = 3, *, output: Literal["probability", "value"] = "value") -> ModelSignature:
    """Return the signature of a code model over floats `x0`, `x1` … ."""
    columns = tuple(Column(f"x{at}", DType.FLOAT) for at in range(width))
    return ModelSignature(
        request=columns, inputs=tuple(ModelInput(column=column) for column in columns), output=output,
        classes=(False, True) if output == "probability" else (), tensor="columns", form="code",
    )  # fmt: skip
