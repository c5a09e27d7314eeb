"""What `taut doctor` finds."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["ok", "warn", "bad"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. mend: what to do, where there is something to do."""

    name: str
    state: State
    said: str
    mend: str = ""
