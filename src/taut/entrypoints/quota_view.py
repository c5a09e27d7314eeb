"""What is lent of every quota, to whom, and who asks for it: gathered from control's books, and shown."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taut.entrypoints import render

if TYPE_CHECKING:
    from taut.trust.quota import Holder, Limit, State

Json = dict[str, Any]
_WHOLE = 1_000_000
_OWN = "each caller"
_WIDTH = 20
_SCALES = {
    "model_ms": (1e3, " s of models"),
    "gpu_ms": (1e3, " s of accelerators"),
    "tokens": (1.0, " tokens"),
}


def picture(
    limits: Mapping[str, Limit],
    held: Sequence[tuple[Holder, int, float]],
    *,
    trouble: str,
    budgets: Sequence[tuple[State, Limit]] = (),
) -> Json:
    """Return what `taut quota` shows. held: who may be using something, the most of each limit, the seconds he was silent.
    budgets: what was spent of them.

    keys: those that gateways named with their last claim: what is asked for most, what is short, what has shares of its own.
    """
    gateways = [
        {"gateway": _name(holder), "share": most / _WHOLE, "silent_s": round(silent_s, 1)}
        for holder, most, silent_s in held
    ]
    return {
        "limits": [
            {**_described(name, limit), "rate_per_s": limit.rate_per_s, "burst": limit.burst}
            for name, limit in sorted(limits.items())
            if not limit.window_s
        ],
        "gateways": gateways,
        "keys": _keys(limits, held),
        "budgets": [_budget(state, limit) for state, limit in budgets],
        "trouble": trouble,
    }


def _keys(limits: Mapping[str, Limit], held: Sequence[tuple[Holder, int, float]]) -> list[Json]:
    keys: dict[tuple[str, str], Json] = {}
    for holder, _, _ in held:
        for use in () if holder.claim is None else holder.claim.uses:
            limit = limits.get(use.name)
            if limit is None:
                continue
            found = keys.setdefault(
                use.key,
                {
                    **_described(use.name, limit),
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
    return [keys[key] for key in sorted(keys)]


def _budget(state: State, limit: Limit) -> Json:
    """Return what was spent of a budget. amount, spent, lent, left: in the unit of `kind`. wait_s: until more comes, 0 where
    some is left."""
    return {
        **_described(state.key[0], limit), "principal": state.key[1], "window_s": limit.window_s, "amount": limit.burst,
        "spent": round(state.spent, 3), "lent": round(state.lent, 3), "left": round(state.left, 3),
        "wait_s": round(state.wait_s),
    }  # fmt: skip


def _described(name: str, limit: Limit) -> Json:
    """Return whose limit it is and what it counts. endpoint: or the name of the declared quota, or of the containment."""
    parts = name.split(":")
    named = parts[1] if parts[0] in ("quota", "contained") and len(parts) > 1 and limit.level else parts[0]
    return {"endpoint": named, "level": limit.level or _OWN, "kind": limit.kind}


def show(result: Json) -> None:
    if result["trouble"]:
        render.line(result["trouble"])
    render.table(
        ("quota", "of", "gives", "burst"),
        [
            (
                one["endpoint"],
                one["level"],
                f"{amount(one['rate_per_s'], one['kind'])}/s",
                amount(one["burst"], one["kind"]),
            )
            for one in result["limits"]
        ],
        empty="nothing is limited by the second: give an endpoint quota_per_s",
    )
    render.table(
        ("gateway", "of each", "silent s"),
        [(one["gateway"], f"{one['share']:.1%}", one["silent_s"]) for one in result["gateways"]],
        empty="no gateway holds a lease",
    )
    render.table(
        ("quota", "caller", "asks", "of", "short", "where"),
        [
            (
                one["endpoint"],
                one["principal"] or one["level"],
                f"{amount(one['asked_per_s'], one['kind'])}/s",
                f"{amount(one['limit_per_s'], one['kind'])}/s",
                "yes" if one["short"] else "",
                " ".join(f"{name} {share:.0%}" for name, share in sorted(one["shares"].items())),
            )
            for one in result["keys"]
        ],
        empty="nobody asks now",
    )
    if result["budgets"]:
        render.table(
            ("budget", "caller", "in any", "of", "spent", "", "lent", "left", "more in"),
            [_row(one) for one in result["budgets"]],
        )


def _row(one: Json) -> tuple[str, ...]:
    kind = one["kind"]
    return (
        one["endpoint"], one["principal"] or one["level"], f"{one['window_s'] / 3600:g} h", amount(one["amount"], kind),
        amount(one["spent"], kind), bar(one["spent"] / one["amount"]), amount(one["lent"], kind), amount(one["left"], kind),
        f"{one['wait_s'] / 60:,.0f} min" if one["wait_s"] else "",
    )  # fmt: skip


def bar(part: float) -> str:
    """Return how far something is used up: drawn on a terminal, in words elsewhere.

    >>> bar(0.5)
    '50%'
    """
    part = min(1.0, max(0.0, part))
    if not sys.stdout.isatty():
        return f"{part:.0%}"
    full = round(part * _WIDTH)
    return f"{'█' * full}{'░' * (_WIDTH - full)} {part:.0%}"


def amount(value: float, kind: str) -> str:
    """Return an amount of a kind as people read it.

    >>> amount(2_500_000, "usd_micros"), amount(1500.0, "model_ms"), amount(12, "requests")
    ('$2.5', '1.5 s of models', '12')
    """
    if kind == "usd_micros":
        return f"${value / 1e6:,.6g}"
    scale, unit = _SCALES.get(kind, (1.0, ""))
    return f"{value / scale:,.6g}{unit}"


def _name(holder: Holder) -> str:
    return holder.name.rpartition("#")[0]
