"""What is lent of every quota, to whom, and who asks for it: gathered from control's books, and shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taut.entrypoints import render

if TYPE_CHECKING:
    from taut.trust.quota import Holder, Limit

Json = dict[str, Any]
_WHOLE = 1_000_000


def picture(limits: Mapping[str, Limit], held: Sequence[tuple[Holder, int, float]], *, trouble: str) -> Json:
    """Return what `taut quota` shows. held: who may be using something, the most of each limit, the seconds he was silent.

    keys: those that gateways named with their last claim: what is asked for most, what is short, what has shares of its own.
    """
    gateways = [
        {"gateway": _name(holder), "share": most / _WHOLE, "silent_s": round(silent_s, 1)}
        for holder, most, silent_s in held
    ]
    keys: dict[tuple[str, str], Json] = {}
    for holder, _, _ in held:
        for use in () if holder.claim is None else holder.claim.uses:
            limit = limits.get(use.name)
            if limit is None:
                continue
            found = keys.setdefault(
                use.key,
                {
                    "endpoint": use.name,
                    "principal": use.who,
                    "limit_per_s": limit.rate_per_s,
                    "asked_per_s": 0.0,
                    "short": False,
                    "shares": {},
                },
            )
            found["asked_per_s"] += use.asked / _WHOLE * limit.rate_per_s
            found["short"] = found["short"] or use.pressed
            found["shares"][_name(holder)] = use.share / _WHOLE
    return {
        "limits": [
            {"endpoint": name, "rate_per_s": limit.rate_per_s, "burst": limit.burst}
            for name, limit in sorted(limits.items())
        ],
        "gateways": gateways,
        "keys": [keys[key] for key in sorted(keys)],
        "trouble": trouble,
    }


def show(result: Json) -> None:
    if result["trouble"]:
        render.line(result["trouble"])
    render.table(
        ("endpoint", "each principal", "burst"),
        [(one["endpoint"], f"{one['rate_per_s']:,g}/s", f"{one['burst']:,g}") for one in result["limits"]],
        empty="nothing is limited: give an endpoint quota_per_s",
    )
    render.table(
        ("gateway", "of each", "silent s"),
        [(one["gateway"], f"{one['share']:.1%}", one["silent_s"]) for one in result["gateways"]],
        empty="no gateway holds a lease",
    )
    render.table(
        ("endpoint", "principal", "asks", "of", "short", "where"),
        [
            (
                one["endpoint"],
                one["principal"],
                f"{one['asked_per_s']:,.1f}/s",
                f"{one['limit_per_s']:,g}/s",
                "yes" if one["short"] else "",
                " ".join(f"{name} {share:.0%}" for name, share in sorted(one["shares"].items())),
            )
            for one in result["keys"]
        ],
        empty="nobody asks now",
    )


def _name(holder: Holder) -> str:
    return holder.name.rpartition("#")[0]
