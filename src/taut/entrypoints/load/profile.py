"""When requests go out: rates over time, and the arrivals that they stand for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from taut.core.errors import InvalidInput, NotFound
from taut.core.units import parse_duration

Uniform = Callable[[], float]
Arrivals = Literal["poisson", "constant"]

_RATE_MAX: Final = 1e6
_ARRIVALS_MAX: Final = 100_000_000
_FILE_BYTES_MAX: Final = 1 << 20


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """Some seconds in which the rate goes evenly from one to another, in requests a second."""

    seconds: float
    start: float
    end: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and 0 < self.seconds <= 86_400):
            raise InvalidInput(f"a stage of {self.seconds} s: choose more than 0, up to a day")
        if not (0 <= self.start <= _RATE_MAX and 0 <= self.end <= _RATE_MAX):
            raise InvalidInput(
                f"rate {self.start} to {self.end}: choose 0 to {_RATE_MAX:,.0f} requests a second"
            )

    @property
    def expected(self) -> float:
        return self.seconds * (self.start + self.end) / 2

    def at(self, area: float) -> float:
        """Return when `area` requests of this stage were expected, in seconds from its start."""
        slope = (self.end - self.start) / self.seconds
        root = math.sqrt(max(0.0, self.start**2 + 2 * slope * area))
        return 2 * area / (self.start + root) if area > 0 else 0.0


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Stages, one after another."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.stages or not 1 <= self.expected <= _ARRIVALS_MAX:
            raise InvalidInput(
                f"this profile stands for {self.expected:,.0f} requests: choose rates and durations for 1 to "
                f"{_ARRIVALS_MAX:,}"
            )

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def expected(self) -> float:
        """How many requests it stands for."""
        return sum(stage.expected for stage in self.stages)

    def arrivals(self, kind: Arrivals, uniform: Uniform) -> Iterator[float]:
        """Yield when each request goes out, in seconds from the start, in order.

        constant: evenly, as the rate says. poisson: independently of one another, as many callers come; by the
        rescaling of time, so that it holds while the rate changes too (Çinlar 1975).
        """
        began, below = 0.0, 0.0
        area = 0.0 if kind == "constant" else _gap(uniform)
        for stage in self.stages:
            while area - below < stage.expected:
                yield began + stage.at(area - below)
                area += 1.0 if kind == "constant" else _gap(uniform)
            began, below = began + stage.seconds, below + stage.expected


def steady(rate: float, duration: str, *, ramp: str = "0s") -> Profile:
    """Return a rate that holds for a duration, after a ramp from nothing that takes part of it."""
    seconds, rising = parse_duration(duration).total_seconds(), parse_duration(ramp).total_seconds()
    if rising > seconds:
        raise InvalidInput(f"a ramp of {ramp} is longer than the {duration} of the whole: make it shorter")
    stages = [Stage(seconds=rising, start=0.0, end=rate)] if rising else []
    if seconds > rising:
        stages.append(Stage(seconds=seconds - rising, start=rate, end=rate))
    return Profile(stages=tuple(stages))


class _Line(msgspec.Struct, forbid_unknown_fields=True, rename={"start": "from", "end": "to"}):
    duration: str
    rate: float | None = None
    start: float | None = None
    end: float | None = None


def read_profile(path: Path) -> Profile:
    """Read a profile: a list of `{rate, duration}` and `{from, to, duration}`, as YAML or JSON.

    Raises NotFound for an absent file, InvalidInput for one that is no profile, with the line that is not.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}: check --profile") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}): check its permissions") from error
    if len(text) > _FILE_BYTES_MAX:
        raise InvalidInput(f"{path} has {len(text):,} bytes: a profile is a short list of stages")
    import yaml

    try:
        found: Any = yaml.safe_load(text)
        lines = msgspec.convert(found, list[_Line], strict=False)
    except (yaml.YAMLError, UnicodeDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise InvalidInput(
            f"{path} is no profile ({str(error)[:300]}): write a list such as [{{rate: 100, duration: 30s}}, "
            "{from: 100, to: 1000, duration: 10s}]"
        ) from error
    return Profile(stages=tuple(_stage(line, at) for at, line in enumerate(lines, start=1)))


def _stage(line: _Line, number: int) -> Stage:
    ends = (line.rate, line.rate) if line.rate is not None else (line.start, line.end)
    mixed = line.rate is not None and (line.start, line.end) != (None, None)
    if mixed or ends[0] is None or ends[1] is None:
        raise InvalidInput(f"stage {number} says neither rate alone nor from and to: give one of the two")
    return Stage(seconds=parse_duration(line.duration).total_seconds(), start=ends[0], end=ends[1])


def _gap(uniform: Uniform) -> float:
    return -math.log(1.0 - uniform())
