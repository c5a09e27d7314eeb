"""The one file of a code model: what to call, its state as data, and the project's bundle, byte for byte.

A deterministic archive: `model.json` (a Document), `code.zip` (the bundle of the run, whose digest the registry records),
and the files of the state. Reading it runs nothing.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from taut.core.canonical import canonical_json, digest_bytes
from taut.core.errors import Corrupt
from taut.project.archive import read_archive, write_archive
from taut.project.bundle import Bundle, parse_bundle
from taut.project.code.sources import path_of
from taut.project.code.state import thaw

BYTES_MAX: Final = 1 << 30
_FILES_MAX: Final = 10_000
_DOCUMENT: Final = "model.json"
_CODE: Final = "code.zip"
_FORMAT: Final = 1
_REMEDY: Final = "restore it, or train the model again"


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is called, and with what.

    kind: `function` is called with the columns; `partial` too, after `args` and with `kwargs`; `object` is made by
    calling the class with `kwargs`, then called with the columns. args, kwargs: trees of a tuple and a dict.
    requires: installed distribution -> its version, of those that the code imports. python: major and minor version.
    """

    module: str
    name: str
    kind: Literal["function", "partial", "object"]
    args: Any
    kwargs: Any
    requires: dict[str, str]
    python: str
    format: int = _FORMAT


class CodeArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """A code model, read and checked, and not run. bundle: the bytes of the project's code."""

    document: Document
    bundle: bytes
    state: dict[str, bytes]

    @property
    def entry(self) -> str:
        return f"{self.document.module}:{self.document.name}"

    @property
    def bundle_digest(self) -> str:
        return digest_bytes(self.bundle)

    @property
    def sources(self) -> Bundle:
        return parse_bundle(self.bundle, what="the model's code")

    def given(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and named arguments. Raises Corrupt."""
        args, kwargs = thaw(self.document.args, self.state), thaw(self.document.kwargs, self.state)
        if (
            type(args) is not tuple
            or type(kwargs) is not dict
            or not all(type(name) is str for name in kwargs)
        ):
            raise Corrupt(f"the model's state is not a tuple and names: {_REMEDY}")
        return args, kwargs


def pack_code(artifact: CodeArtifact) -> bytes:
    """Return the bytes of a code model: equal models have equal bytes."""
    files = {_DOCUMENT: canonical_json(artifact.document), _CODE: artifact.bundle, **artifact.state}
    return write_archive(files)


def open_code(data: bytes) -> CodeArtifact:
    """Read a code model and check its form; nothing of it is run, and its state is not read yet.

    Raises Corrupt for anything that `pack_code` cannot have written.
    """
    files = read_archive(
        data, what="the model's file", remedy=_REMEDY, max_bytes=BYTES_MAX, max_files=_FILES_MAX
    )
    code, document = files.pop(_CODE, None), files.pop(_DOCUMENT, None)
    if code is None or document is None:
        raise Corrupt(f"the model's file holds no {_CODE if code is None else _DOCUMENT}: {_REMEDY}")
    try:
        read = msgspec.json.decode(document, type=Document)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Corrupt(f"the model's {_DOCUMENT} does not fit ({error}): {_REMEDY}") from error
    if read.format != _FORMAT:
        raise Corrupt(f"the model's file is of format {read.format}, this version reads {_FORMAT}: {_REMEDY}")
    if any(not name.startswith("state/") for name in files):
        raise Corrupt(f"the model's file holds more than code and state: {_REMEDY}")
    made = CodeArtifact(document=read, bundle=code, state=files)
    if path_of(made.sources.files, read.module) is None:
        raise Corrupt(f"the model's code has no module {read.module[:80]!r}: {_REMEDY}")
    return made
