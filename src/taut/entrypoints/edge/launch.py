"""The first code of a bundle, `__main__.py` in it: reads the file once, compares every byte of it with what was signed, and
runs what it compared, never what lies in the file by then.

It needs Python's own library only. Whether the signature is that of somebody who is trusted is said by the verifier that it
starts (`taut.serving.edge.bundle`), before anything else of the bundle is run.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import io
import json
import sys
import zipfile
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import CodeType, ModuleType
from typing import Final

CORRUPT: Final = 8
_STATEMENT: Final = "edge.json"


class Unsigned(Exception):
    """What the file holds is not what its statement names."""


class Sources(MetaPathFinder, InspectLoader):
    """Imports the package from memory, and from nowhere else. where: the file, for tracebacks."""

    def __init__(self, files: dict[str, bytes], where: str) -> None:
        self._files: Final = files
        self._where: Final = where

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - as every finder
        target: ModuleType | None = None,  # noqa: ARG002 - as every finder
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != "taut":
            return None
        name = self._name(fullname)
        if name is None:
            raise ModuleNotFoundError(f"{fullname} is not in this bundle", name=fullname)
        spec = spec_from_loader(
            fullname, self, origin=f"{self._where}/{name}", is_package=self.is_package(fullname)
        )
        if spec is not None:
            spec.has_location = True
        return spec

    def is_package(self, fullname: str) -> bool:
        return (self._name(fullname) or "").endswith("/__init__.py")

    def get_source(self, fullname: str) -> str:
        name = self._name(fullname)
        if name is None:
            raise ImportError(f"{fullname} is not in this bundle", name=fullname)
        return self._files[name].decode("utf-8")

    def get_code(self, fullname: str) -> CodeType:
        return compile(
            self.get_source(fullname), f"{self._where}/{self._name(fullname)}", "exec", dont_inherit=True
        )

    def _name(self, fullname: str) -> str | None:
        path = fullname.replace(".", "/")
        return next((name for name in (f"{path}/__init__.py", f"{path}.py") if name in self._files), None)


def read(path: str) -> dict[str, bytes]:
    """Return the files of a bundle, each as its statement names it. Raises Unsigned, naming the first that differs."""
    try:
        with open(path, "rb") as file, zipfile.ZipFile(io.BytesIO(file.read())) as archive:
            names = archive.namelist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise Unsigned(
                    "a part of it is compressed, which none of a bundle is"
                )  # nor can it unpack to any size
            files = {name: archive.read(name) for name in names}
    except Exception as error:
        said = str(error)[:200] or type(error).__name__
        raise Unsigned(f"{path} is no whole bundle ({said}): export it again") from error
    if len(set(names)) != len(names):
        raise Unsigned(f"{path} holds a file twice: export it again")
    try:
        payload = json.loads(base64.b64decode(json.loads(files[_STATEMENT])["payload"], validate=True))
        signed = {str(name): str(file["digest"]) for name, file in payload["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Unsigned(
            f"{_STATEMENT} cannot be read ({type(error).__name__}): export the bundle again"
        ) from error
    for name in sorted({*signed, *files} - {_STATEMENT}):
        if name not in files:
            raise Unsigned(f"{name} is missing from the bundle: export it again")
        if signed.get(name) != "sha256:" + hashlib.sha256(files[name]).hexdigest():
            raise Unsigned(f"{name} is not what was signed: export the bundle again")
    return files


def main(path: str, words: Sequence[str]) -> int:
    """Run a bundle and return its exit code: 8 when it is not what was signed."""
    if sys.version_info < (3, 11):  # noqa: UP036 - a device has the Python that it has
        sys.stderr.write("unavailable: this bundle needs Python 3.11 or later\n")
        return 7
    try:
        files = read(path)
    except Unsigned as error:
        sys.stderr.write(f"corrupt: {error}\n")
        return CORRUPT
    sys.meta_path.insert(0, Sources(files, path))
    try:
        runner = importlib.import_module("taut.entrypoints.edge.main")
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"unavailable: {error.name} is not installed here: "
            "unzip -p THIS_FILE requirements.txt > requirements.txt && pip install --require-hashes -r requirements.txt\n"
        )
        return 7
    return int(runner.main(files, list(words)))


if __name__ == "__main__":
    sys.exit(main(sys.path[0], sys.argv[1:]))
