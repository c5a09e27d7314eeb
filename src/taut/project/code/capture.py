"""From the callable that a builder returned to an artifact: by name and with plain state, or not at all."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final

from taut.core.canonical import canonical_json
from taut.core.errors import InvalidInput
from taut.project.bundle import parse_bundle
from taut.project.code.artifact import BYTES_MAX, CodeArtifact, Document
from taut.project.code.needs import environment_of
from taut.project.code.sources import is_hidden, path_of
from taut.project.code.state import freeze

_FORMS: Final = (
    "return a function at the top of a module, a functools.partial of one, or an instance of a dataclass at the top of a "
    "module that has __call__"
)


def is_code(model: Any) -> bool:
    """Whether what a builder returned is meant to be called, not converted."""
    return (
        callable(model)
        and not isinstance(model, type)
        and not (hasattr(model, "fit") and hasattr(model, "predict"))
    )


def kind_of_code(model: Any) -> str:
    """Return what a callable is, for people: `code module:name`."""
    found = model.func if isinstance(model, functools.partial) else model
    found = found if isinstance(found, FunctionType) else type(found)
    return f"code {found.__module__}:{found.__qualname__}"


def capture(model: Callable[..., Any], bundle: bytes) -> CodeArtifact:
    """Return the artifact of a callable whose module was imported from a bundle.

    Raises InvalidInput, saying what it is and what to return instead, for a lambda, a closure, a nested function, code that is
    not of the project, and state that cannot travel as data.
    """
    files: dict[str, bytes] = {}
    target: Any
    args, kwargs = freeze((), where="arguments", files=files), freeze({}, where="arguments", files=files)
    if isinstance(model, FunctionType):
        kind, target = "function", model
    elif type(model) is functools.partial:
        kind, target = "partial", model.func
        if not isinstance(target, FunctionType):
            raise InvalidInput(f"the partial is of {target!r:.80}, no function of the project: {_FORMS}")
        args = freeze(tuple(model.args), where="bound argument", files=files)
        kwargs = freeze(dict(model.keywords), where="bound argument", files=files)
    else:
        kind, target = "object", type(model)
        kwargs = freeze(_fields(model), where=f"{target.__qualname__}", files=files)
    sources = parse_bundle(bundle)
    _check_name(target, sources.files)
    document = Document(
        module=target.__module__, name=target.__qualname__, kind=kind, args=args, kwargs=kwargs,  # type: ignore[arg-type]  # one of the three
        **environment_of(sources.files, target.__module__),
    )  # fmt: skip
    size = len(canonical_json(document)) + sum(map(len, files.values()))
    if size > BYTES_MAX - len(bundle):
        raise InvalidInput(
            f"the model's state has {size:,} bytes, {BYTES_MAX:,} are allowed: make it smaller"
        )
    return CodeArtifact(document=document, bundle=bundle, state=files)


def _fields(model: Any) -> dict[str, Any]:
    kind = type(model)
    if not dataclasses.is_dataclass(model):
        raise InvalidInput(
            f"the model is a {kind.__module__}.{kind.__qualname__}, which is neither a function nor a dataclass, so its "
            f"state is not known by name: {_FORMS}"
        )
    named = {field.name for field in dataclasses.fields(model)}
    odd = [name for name in kind.__dataclass_fields__ if name not in named and not _is_class_var(kind, name)]
    if odd:
        raise InvalidInput(
            f"{kind.__qualname__} takes {odd[0]!r} as an InitVar, which is not kept: make it a field"
        )
    more = [
        name
        for name in getattr(model, "__dict__", {})
        if name not in named
        and not isinstance(inspect.getattr_static(kind, name, None), functools.cached_property)
    ]
    if more:
        raise InvalidInput(
            f"{kind.__qualname__} has the attribute {more[0]!r}, which is no field, so it would be lost: declare it as one"
        )
    return {field.name: getattr(model, field.name) for field in dataclasses.fields(model) if field.init}


def _is_class_var(kind: Any, name: str) -> bool:
    return kind.__dataclass_fields__[name]._field_type is dataclasses._FIELD_CLASSVAR  # type: ignore[attr-defined]  # no public word for it


def _check_name(target: Any, files: dict[str, bytes]) -> None:
    """Prove that the name leads back to the very same thing, in a module of the project."""
    module, name = target.__module__, target.__qualname__
    what = "the function" if isinstance(target, FunctionType) else "the class"
    if "<lambda>" in name:
        raise InvalidInput(f"the model is a lambda (in {module}), which has no name to be found by: {_FORMS}")
    if "." in name:
        raise InvalidInput(
            f"{what} {name} of {module} is nested in another, so what it closes over would be lost: {_FORMS}; bind values "
            "with functools.partial, or keep them in fields"
        )
    if path_of(files, module) is None:
        raise InvalidInput(
            f"{what} {name} is of {module}, which is no module of the project: write one in the project's folder that calls it"
        )
    if is_hidden(module):
        raise InvalidInput(
            f"{what} {name} lies in {module}.py, whose name is that of a module of Python or of taut: rename the file"
        )
    if getattr(sys.modules.get(module), name, None) is not target:
        raise InvalidInput(
            f"{what} {name} of {module} is not what that name leads to (a decorator replaced it, or it was made again): "
            "return the one that the module holds"
        )
