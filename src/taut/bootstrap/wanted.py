"""How many gateways a supervisor keeps: what `taut up` was told, until control, having said so on the scale log, asks for others."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from taut.serving.files import replace_file

GATEWAYS_MAX: Final = 64
_FILE: Final = Path("run") / "gateways"
_PINNED: Final = b"pinned"


class Wanted:
    """The number in a file of the home: control writes it, its supervisor reads it several times a second.

    Beside it stands whether a person chose it, which holds as long as the number does: until the supervisor is started anew.
    """

    def __init__(self, home: Path) -> None:
        self._path: Final = home / _FILE
        self._seen: tuple[int, int] = (0, 0)

    def forget(self) -> None:
        """Begin with what the command line says, whatever was asked for before."""
        self._path.unlink(missing_ok=True)

    def read(self) -> int | None:
        """Return the number; None where nobody asked for one, or nothing that could be one."""
        words = self._words()
        try:
            found = int(words[0]) if words else 0
        except ValueError:
            return None
        return found if 1 <= found <= GATEWAYS_MAX else None

    @property
    def pinned(self) -> bool:
        """Whether a person chose the number, so that nothing else changes it."""
        return self.read() is not None and self._words()[1:] == [_PINNED]

    def news(self) -> int | None:
        """Return the number where it was written since this was asked last."""
        try:
            told = self._path.stat()
        except OSError:
            return None
        seen = (told.st_mtime_ns, told.st_ino)
        if seen == self._seen:
            return None
        self._seen = seen
        return self.read()

    def write(self, gateways: int, *, pinned: bool = False) -> None:
        text = b"%d %s" % (gateways, _PINNED) if pinned else b"%d" % gateways
        replace_file(self._path, text, temporary=self._path.with_suffix(".tmp"))

    def _words(self) -> list[bytes]:
        try:
            return self._path.read_bytes().split()
        except OSError:
            return []
