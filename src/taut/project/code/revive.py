"""From an artifact back to a callable. This runs a builder's code: in workers and jobs only, which hold nothing."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from taut.core.errors import Corrupt, InvalidInput
from taut.project.code.artifact import CodeArtifact
from taut.project.code.needs import check_environment
from taut.project.code.sources import ROOT, Sources, path_of

Columns = Mapping[str, npt.NDArray[Any]]
"""Input name -> its values, all of one length: float64, int64, bool, or objects that are str. Read-only."""
_KINDS: Final = {"f": np.float64, "i": np.int64, "b": np.bool_, "O": np.object_}


class CodeFailed(Exception):
    """The code raised on its input, or returned what is no answer to it. Quotes nothing of what the code would say."""


class Revived:
    """A code model that can be called. `close` forgets its modules."""

    def __init__(self, call: Callable[[Columns], Any], sources: Sources) -> None:
        self._call: Final = call
        self._sources: Final = sources

    def __call__(self, columns: Columns, count: int) -> npt.NDArray[Any]:
        """Return the answers to `count` rows, `[n]` or `[n, classes]`, FP32 or FP64, as a tensor of its own.

        Raises CodeFailed for whatever the code raises, exits included, and for another shape or type; MemoryError as it is,
        since what holds the memory would hold it for ever.
        """
        self._sources.activate()
        given = {name: _view(values) for name, values in columns.items()}
        return answer_of(self._call, given, count)

    def close(self) -> None:
        self._sources.remove()


def answer_of(call: Callable[[Columns], Any], given: Columns, count: int) -> npt.NDArray[Any]:
    """Ask a callable about columns; see `Revived.__call__`."""
    try:
        found = np.array(call(given))
    except MemoryError:
        raise
    except BaseException as error:  # SystemExit too: nothing that the code raises ends a worker
        raise CodeFailed(f"raised {said(error)}") from error
    if found.dtype.kind not in "fiub" or found.ndim not in (1, 2) or found.shape[0] != count:
        raise CodeFailed(f"returned {found.dtype} of shape {found.shape} for {count} rows")
    return found if found.dtype in (np.float32, np.float64) else found.astype(np.float64)


def _view(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return values in the type that the code was trained on, so that writing to them fails wherever it is tried."""
    kind = _KINDS[values.dtype.kind]
    flat = values.reshape(-1)
    made = flat.view() if flat.dtype == kind else flat.astype(kind)
    made.flags.writeable = False
    return made


def revive(artifact: CodeArtifact) -> Revived:
    """Import the model's code from memory and make its callable.

    Its modules stay importable to it for as long as the process lives, or until `close`.
    Raises InvalidInput when the environment is another, the code cannot be imported, or the callable is not there;
    Corrupt for state that cannot be read.
    """
    document = artifact.document
    check_environment(document.requires, document.python)
    args, kwargs = artifact.given()
    files = artifact.sources.files
    if path_of(files, document.module) is None:
        raise Corrupt(f"the model's code has no module {document.module!r}: train it again")
    sources = Sources(files)
    sources.activate()
    try:
        __import__(document.module)
        target = getattr(sys.modules[document.module], document.name)
        made = target(**kwargs) if document.kind == "object" else target
    except MemoryError:
        raise
    except BaseException as error:
        sources.remove()
        detail = str(error)[:300].splitlines()
        raise InvalidInput(
            f"the model's code {artifact.entry} cannot be loaded: {said(error)}{': ' + detail[0] if detail else ''}. What it "
            "imports must lie in the project's folder or be installed, and it reads no files"
        ) from error
    call = (lambda columns: made(*args, columns, **kwargs)) if document.kind == "partial" else made
    return Revived(call, sources)


def said(error: BaseException) -> str:
    """Return what was raised and where in the project's code, without its own words: they may quote a row or the state."""
    name = type(error).__name__[:80]
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(f"{ROOT}/")
    ]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{name} in {error.filename.removeprefix(f'{ROOT}/')}, line {error.lineno}"
    if not frames:
        return name
    return f"{name} in {frames[-1].filename.removeprefix(f'{ROOT}/')}, line {frames[-1].lineno}"
