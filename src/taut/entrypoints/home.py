"""The installation's folder: nobody else's, and closed to everybody else's hands."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from taut.core.errors import Denied


def private_home(home: Path) -> None:
    """Make the folder with mode 0700 when it is absent.

    Raises Denied when it belongs to another user, or others may write into it: they could put a key store, a database
    or a socket of their own in the place of those that are here.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = home.stat()
    if status.st_uid != os.geteuid() and os.geteuid() != 0:
        raise Denied(
            f"{home} belongs to user {status.st_uid}: run taut as that user, or name another home with --home"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Denied(
            f"other users may write into {home} (mode {stat.S_IMODE(status.st_mode):o}), and so become this "
            f"installation: run `chmod go-w {home}`"
        )
