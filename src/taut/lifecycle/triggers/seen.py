"""What is known of a model at the moment of a look."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import msgspec

DAY: Final = timedelta(hours=24)


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What runs of the last 24 hours took. runs: that triggers started. cpu_s: of all of the model, whoever started them."""

    runs: int = 0
    cpu_s: float = 0.0


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a look found.

    snapshots: dataset -> number of its current snapshot, of all that the model learns from. learned, code: what the newest run that ended well learned
    from, whoever started it; empty before the first. now_code: digest of the code that would run now. added: dataset -> rows that came since the last
    run began. alarms: `drift` and `quality` -> ids of open alerts about the live version. outcomes: that count. doubted: that do
    not. busy: why no run may begin now, empty where one may. refused: why triggers of the model may do nothing at all.
    """

    snapshots: dict[str, int] = {}
    learned: dict[str, int] = {}
    code: str = ""
    now_code: str = ""
    added: dict[str, int] = {}
    alarms: dict[str, tuple[str, ...]] = {}
    outcomes: int = 0
    doubted: int = 0
    spent: Spent = Spent()
    busy: str = ""
    refused: str = ""
