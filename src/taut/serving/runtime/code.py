"""Loading a model where builders' code may run: in workers and jobs, which hold no secret, no network and no files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from taut.core.schema import ModelSignature
from taut.project.code import CodeFailed, Revived, open_code, revive
from taut.serving.errors import BadAnswer
from taut.serving.runtime.encode import Feed
from taut.serving.runtime.form import code_tensors
from taut.serving.runtime.loaded import LoadedModel, check_signature
from taut.serving.runtime.session import load


class CodeModel(LoadedModel):
    """A builder's callable in memory. One thread at a time."""

    def __init__(self, revived: Revived, signature: ModelSignature) -> None:
        super().__init__(signature, code_tensors(signature))
        self._revived: Final = revived
        self._names: Final = [item.column.name for item in signature.inputs]
        self.cost = self.measure()

    def raw(self, feed: Feed) -> npt.NDArray[Any]:
        columns = {name: feed[name] for name in self._names}
        try:
            return self._revived(columns, len(columns[self._names[0]]))
        except CodeFailed as error:
            raise BadAnswer(f"the model's code {error}") from error

    def close(self) -> None:
        """Forget the code's modules: for processes that go on to do something else."""
        self._revived.close()


def load_apart(model: Path | bytes, signature: ModelSignature) -> LoadedModel:
    """Load a model of any form. Code is run by this: only workers and jobs may call it.

    Raises as `load` does; InvalidInput also for code that cannot be imported here.
    """
    if signature.form == "onnx":
        return load(model, signature)
    check_signature(signature)
    code_tensors(signature)
    return CodeModel(revive(open_code(model if isinstance(model, bytes) else model.read_bytes())), signature)
