"""A version as a folder that can be carried elsewhere and verified there with the public keys alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from taut.core.canonical import canonical_json, digest_bytes
from taut.core.errors import Conflict, Corrupt, NotFound
from taut.ports.keys import PublicKey
from taut.trust.signing.models import Manifest, read_manifest

MANIFEST_FILE: Final = "manifest.json"
_CARDS: Final = ("card.md", "card.json")


def write_export(
    folder: Path, files: dict[str, bytes], *, statement: str, card: str, card_json: dict[str, Any]
) -> tuple[str, ...]:
    """Write the files, the signed manifest and the card; return their names. Raises Conflict on a folder in use."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise Conflict(f"{folder} is not empty: name a folder of its own")
    written = {
        **files,
        MANIFEST_FILE: statement.encode(),
        "card.md": card.encode(),
        "card.json": canonical_json(card_json),
    }
    for name, data in written.items():
        (folder / name).write_bytes(data)
    return tuple(sorted(written))


def verify_export(folder: Path, public_keys: tuple[PublicKey, ...]) -> Manifest:
    """Verify an exported folder: its manifest is signed, each file is what was signed, and none was added.

    The cards are not covered by the signature. Raises NotFound without a manifest, Denied for an unknown key, Corrupt
    naming the file that differs.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise NotFound(f"{folder} holds no {MANIFEST_FILE}: it is no exported model")
    manifest = read_manifest(path.read_bytes(), public_keys, None)
    for name, file in manifest.files.items():
        found = folder / name
        if found.is_symlink() or not found.is_file() or digest_bytes(found.read_bytes()) != file.digest:
            raise Corrupt(f"{name} in {folder} is not what was signed: export it again")
    strange = sorted(set(os.listdir(folder)) - {*manifest.files, MANIFEST_FILE, *_CARDS})
    if strange:
        raise Corrupt(f"{folder} holds {strange[0]!r}, which nobody signed: export it again")
    return manifest
