"""Reading a project's policies: the Cedar files of its folder `policies`, as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from taut.core.errors import InvalidInput
from taut.project.manifest import PolicySpec

FOLDER: Final = "policies"
_MAX_FILES: Final = 256
_MAX_BYTES: Final = 256 * 1024


def read_policy_files(root: Path) -> tuple[PolicySpec, ...]:
    """Return the files `policies/*.cedar` below the project's folder, by name; none where there is no such folder.

    What they say is judged by the plan gate. Raises InvalidInput for a link, a file that is no text in UTF-8, one beyond
    256 KiB, and more than 256 of them.
    """
    paths = sorted((root / FOLDER).glob("*.cedar"))
    if len(paths) > _MAX_FILES:
        raise InvalidInput(
            f"{root / FOLDER} holds {len(paths)} files of policies, more than {_MAX_FILES}: join some"
        )
    return tuple(PolicySpec(name=f"{FOLDER}/{path.name}", text=_text(path)) for path in paths)


def _text(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        raise InvalidInput(f"{path} is a symbolic link or no plain file: copy it into the project's folder")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InvalidInput(f"{path} is larger than {_MAX_BYTES} bytes: write fewer or shorter policies")
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is no text in UTF-8 (byte {error.start}): save it as such") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}): mend its permissions") from error
