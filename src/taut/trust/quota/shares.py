"""Who gets how much of one limit."""

from __future__ import annotations

from collections.abc import Mapping

from taut.trust.quota.limit import WHOLE

_HEADROOM = 5  # a fifth more than was asked, so that a load that grows is not refused while the next lease is under way
_FLOOR = (
    10  # of an equal share, what a gateway has of a key that nobody asks it for, for the first one who does
)


def fair_shares(asked: Mapping[str, int], *, whole: int = WHOLE) -> dict[str, int]:
    """Share `whole` among those who asked: nobody has more than he wants while another wants more than an equal part.

    asked: by holder, in the unit of `whole`. Each has a tenth of an equal share at least; what nobody wants is spread evenly.
    Together they get `whole`, less a remainder below their number.
    Source: max-min fairness (Bertsekas and Gallager, Data Networks, 1992, 6.5.2); FAIR_SHARE in Doorman.

    >>> fair_shares({"a": 900_000, "b": 0, "c": 0})
    {'b': 33333, 'c': 33333, 'a': 933332}
    """
    if not asked:
        return {}
    floor = whole // len(asked) // _FLOOR
    left = whole - floor * len(asked)
    got: dict[str, int] = {}
    for at, (name, units) in enumerate(sorted(asked.items(), key=lambda one: (one[1], one[0]))):
        wanted = max(0, units + units // _HEADROOM - floor)
        got[name] = min(wanted, left // (len(asked) - at))
        left -= got[name]
    return {name: floor + more + left // len(asked) for name, more in got.items()}
