"""Copies of checkpoints where whoever can write the database cannot reach: what makes a cut tail visible."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, Protocol

from taut.core.errors import Conflict, Corrupt, Unavailable
from taut.ports.blobs import Blobs

_NAME: Final = re.compile(r"[0-9]{20}")


class CheckpointCopy(Protocol):
    """A place that keeps checkpoints, one a size.

    Guarantees: what `publish` returned from is durable; a checkpoint that is there is never replaced.
    Not guaranteed: anything against somebody who can delete in that place; choose one where the ledger's own
    administrators cannot (an object store with retention, another person's machine).
    """

    @property
    def name(self) -> str:
        """A name for messages."""
        ...

    def latest(self) -> str | None:
        """Return the note with the largest size, None when there is none. Raises Unavailable."""
        ...

    def publish(self, size: int, note: str) -> None:
        """Keep a note. The very same again is free; Conflict when another is kept for that size. Raises Unavailable."""
        ...

    def read(self, size: int) -> str | None:
        """Return the note kept for `size`, None when there is none."""
        ...


class DirectoryCopy:
    """Checkpoints as files of a folder: another disk, a mounted share, a stick that the customer keeps.

    Finding the latest lists the folder: choose a cadence of checkpoints that keeps it within some 100,000 files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        return f"folder {self._folder}"

    def latest(self) -> str | None:
        try:
            with os.scandir(self._folder) as entries:
                last = max((entry.name for entry in entries if _NAME.fullmatch(entry.name)), default=None)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unavailable(error) from error
        return None if last is None else self.read(int(last))

    def read(self, size: int) -> str | None:
        try:
            return (self._folder / f"{size:020d}").read_bytes().decode()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as error:
            raise Corrupt(f"checkpoint {size} in {self.name} is no text: it was changed") from error
        except OSError as error:
            raise self._unavailable(error) from error

    def publish(self, size: int, note: str) -> None:
        final = self._folder / f"{size:020d}"
        draft = self._folder / f".{size:020d}.{os.getpid()}.{id(note):x}"
        try:
            # each by itself: of parents, mkdir leaves the mode to the umask
            for folder in (self._folder.parent, self._folder):
                folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            with draft.open("xb") as file:
                os.fchmod(
                    file.fileno(), 0o444
                )  # for everybody to read and nobody to change, whatever the umask
                file.write(note.encode())
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, final)  # fails when it is there, so that nothing is ever replaced
            except FileExistsError:
                if self.read(size) != note:
                    raise Conflict(f"{self.name} keeps another checkpoint of size {size}") from None
            finally:
                draft.unlink()
            self._sync()
        except OSError as error:
            raise self._unavailable(error) from error

    def _sync(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _unavailable(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"checkpoint copy in {self.name} cannot be used: {error.strerror}: mend it, then `taut ledger checkpoint`"
        )


class BlobsCopy:
    """Checkpoints as named objects of a Blobs store; give its bucket retention, so that nobody can delete them."""

    def __init__(self, blobs: Blobs, *, prefix: str = "ledger/checkpoints", name: str = "blob store") -> None:
        self._blobs = blobs
        self._prefix = prefix.rstrip("/") + "/"
        self._name = name

    @property
    def name(self) -> str:
        return f"{self._name} {self._prefix}"

    def latest(self) -> str | None:
        last = None
        for last in self._blobs.names(self._prefix):  # noqa: B007 - names come in order: the last one is wanted
            pass
        return None if last is None else self._text(last)

    def read(self, size: int) -> str | None:
        name = f"{self._prefix}{size:020d}"
        return self._text(name) if name in self._blobs.names(name) else None

    def publish(self, size: int, note: str) -> None:
        self._blobs.put_named(f"{self._prefix}{size:020d}", note.encode())

    def _text(self, name: str) -> str:
        try:
            return self._blobs.read_named(name).decode()
        except UnicodeDecodeError as error:
            raise Corrupt(f"checkpoint {name} in {self._name} is no text: it was changed") from error
