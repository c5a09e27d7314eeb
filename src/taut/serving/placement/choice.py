"""Which device a model runs on, by what was measured: pure, so that it can be looked at row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from taut.core.devices import CPU, Device, is_accelerator
from taut.serving.placement.wish import Wish
from taut.serving.runtime import SIZINGS, Cost

# What a worker says is read with these bounds: a builder's code may be in the process.
Name = Annotated[str, msgspec.Meta(max_length=32, pattern=r"^[a-z]+(:[0-9]{1,2})?$")]
Said = Annotated[str, msgspec.Meta(max_length=400)]
Usd = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
SAID_LENGTH: Final = 300


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a model on one device.

    cost: None where it could not be measured. usd_per_million: what a million rows cost in the batches that its endpoint
    would make there. refused: why it does not serve there, whatever it costs; "" where it could. again: whether that may
    be otherwise later.
    """

    device: Name
    cost: Cost | None = None
    usd_per_million: Usd | None = None
    refused: Said = ""
    again: bool = False


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model runs in one worker, and why.

    trials: every device that was tried, in that order. lost: why it runs on the CPU although an accelerator was
    to be had or was taken before; "" where it runs where it should.
    """

    device: Name = CPU
    trials: Annotated[tuple[Trial, ...], msgspec.Meta(max_length=32)] = ()
    lost: Said = ""

    @property
    def accelerated(self) -> bool:
        return is_accelerator(self.device)

    @property
    def trial(self) -> Trial | None:
        """Return what was measured where it runs."""
        return next((one for one in self.trials if one.device == self.device), None)


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's model runs elsewhere from now on, at another cost."""

    placement: Placement
    cost: Cost | None


def priced(device: Device, cost: Cost | None, wish: Wish) -> Trial:
    """Return the trial of a device on which a model can serve."""
    if cost is None:
        return Trial(device=device.name)
    rows = SIZINGS[wish.profile].batch_rows(cost, wish.latency_s)
    return Trial(device=device.name, cost=cost, usd_per_million=device.usd_per_million(cost.us(rows) / rows))


def meets(cost: Cost | None, wish: Wish) -> bool:
    """Whether one row is answered within what a batch may take of the endpoint's latency; unknown is no."""
    return cost is not None and cost.us(1) <= SIZINGS[wish.profile].batch_us(wish.latency_s)


def choose(trials: Sequence[Trial], wish: Wish) -> Placement:
    """Return the cheapest device that is fast enough, or else the fastest; one thread of the CPU where nothing is known.

    trials: the first of one thread of the CPU. Of equals the earlier is taken. Where an accelerator is named, one that
    can serve is taken before every CPU. `lost` is said where an accelerator failed that may have been taken: one that
    is named, or any where it can be tried again.
    """
    able = [one for one in trials if not one.refused]
    if wish.named:
        able = [one for one in able if is_accelerator(one.device)] or able
    known = [one for one in able if one.cost is not None]
    enough = [one for one in known if meets(one.cost, wish)]
    if enough:
        best = min(enough, key=_usd)
    else:
        best = min(known, key=_one_row_us) if known else able[0]
    lost = "" if is_accelerator(best.device) else _lost(trials, wish)
    return Placement(device=best.device, trials=tuple(trials), lost=lost[:SAID_LENGTH])


def _lost(trials: Sequence[Trial], wish: Wish) -> str:
    tried = [one for one in trials if is_accelerator(one.device)]
    if wish.named and not wish.accelerators:
        return "the accelerator that its endpoint names is not in TAUT_DEVICES here"
    failed = [one for one in tried if one.again or wish.named]
    return "; ".join(f"{one.device}: {one.refused}" for one in failed)


def _usd(trial: Trial) -> float:
    return float("inf") if trial.usd_per_million is None else trial.usd_per_million


def _one_row_us(trial: Trial) -> float:
    return float("inf") if trial.cost is None else trial.cost.us(1)
