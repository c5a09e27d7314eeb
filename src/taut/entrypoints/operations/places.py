"""Which files control reads for somebody who is not on the installation's machine: the project's own, and no others.

Whoever has access to the installation's files may name any file that its user may read. A caller over the network has
only his role, and control must not lend him its user's rights: he reads what the project declares, or what lies in the
project's folder.
"""

from __future__ import annotations

import glob
import os.path
from pathlib import Path

import msgspec

from taut.core.errors import Denied
from taut.entrypoints.operations.operation import Caller, Platform
from taut.project.manifest import Manifest


def check_source(caller: Caller, manifest: Manifest, source: str | None) -> None:
    """Raise Denied when a remote caller names a source that is neither declared nor inside the project's folder."""
    if source is None or caller.local or source in {spec.source.url for spec in manifest.datasets}:
        return
    _check_inside(Path(manifest.root), source)


def placed(platform: Platform, caller: Caller, manifest: Manifest) -> Manifest:
    """Return the manifest as this caller may apply it: from elsewhere, the project's folder stays where it is.

    Objects of S3 may be declared by anybody who may apply: the installation's credentials bound what they reach.
    Raises Denied when a remote caller applies the first plan, or declares a file outside the project's folder anew.
    """
    if caller.local:
        return manifest
    now: Manifest | None = platform.plans.current()
    if now is None:
        raise Denied(
            "the first plan says where the project's folder is: run `taut apply` on the installation's machine"
        )
    known = {spec.source.url for spec in now.datasets}
    for spec in manifest.datasets:
        if spec.source.url not in known and not spec.source.url.startswith("s3://"):
            _check_inside(Path(now.root), spec.source.url)
    return msgspec.structs.replace(manifest, root=now.root)


def _check_inside(root: Path, source: str) -> None:
    """Raise Denied unless the path, and everything that a pattern matches, lies below root, links followed."""
    text = source.removeprefix("file://")
    inside = "://" not in text and "\0" not in text and not text.startswith("~")
    if inside:
        full = root / text
        found = (
            [os.path.normpath(full), *glob.iglob(str(full), recursive=True)]
            if glob.has_magic(text)
            else [full]
        )
        base = root.resolve()
        inside = bool(str(root)) and all(Path(path).resolve().is_relative_to(base) for path in found)
    if not inside:
        raise Denied(
            f"{source[:200]!r} is neither declared by the project nor inside its folder: declare it, or name it on the "
            "installation's machine"
        )
