"""Draws replicas against load in the simulation, by the autoscaler and by a plain target tracker, as SVG."""

from __future__ import annotations

from collections.abc import Iterable

from scaling_world import RATE, Plain, World

from taut.fleet.scaling import Autoscaler, Rule

SECONDS, TARGET, MOST = 1800, 0.7, 40
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 860, 330, 46, 40, 36
COLOURS = {"load": "#8a8a8a", "autoscaler": "#0b6e4f", "plain": "#c8553d"}


def load(at_s: float) -> float:
    """Quiet, tenfold at once, falling off, a burst of a minute, quiet."""
    if at_s < 120:
        return 100.0
    if at_s < 480:
        return 1000.0
    if at_s < 900:
        return 1000.0 - 700.0 * (at_s - 480) / 420
    return 1500.0 if 1200 <= at_s < 1260 else 300.0


def run(scaler: object) -> World:
    return World(scaler, load, n=2, ready=2).run(SECONDS)  # type: ignore[arg-type]


def line(values: Iterable[tuple[float, float]], colour: str, *, dash: str = "") -> str:
    at = [(f"{x(at_s):.0f}", f"{y(value):.0f}") for at_s, value in values]
    kept = [
        one
        for before, one, after in zip(at, at[1:], at[2:], strict=False)
        if not before[1] == one[1] == after[1]
    ]
    points = " ".join(",".join(one) for one in dict.fromkeys([at[0], *kept, at[-1]]))
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'


def x(at_s: float) -> float:
    return LEFT + at_s / SECONDS * (WIDTH - LEFT - 12)


def y(replicas: float) -> float:
    return TOP + (1 - replicas / MOST) * (HEIGHT - TOP - BOTTOM)


def text(left: float, top: float, said: str, *, colour: str = "#333", anchor: str = "start") -> str:
    return f'<text x="{left:.0f}" y="{top:.0f}" fill="{colour}" text-anchor="{anchor}">{said}</text>'


def draw() -> str:
    ours = run(Autoscaler(Rule(pool="gateway", maximum=MOST, cpu=TARGET)))
    plain = run(Plain(TARGET, most=MOST))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for replicas in range(0, MOST + 1, 10):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 12}" y1="{y(replicas):.1f}" y2="{y(replicas):.1f}" stroke="#e4e4e4"/>'
        )
        parts.append(text(LEFT - 8, y(replicas) + 4, str(replicas), anchor="end"))
    for minute in range(0, SECONDS // 60 + 1, 5):
        parts.append(text(x(minute * 60), HEIGHT - 14, f"{minute} min", anchor="middle"))
    parts.append(
        line(
            ((at_s, wanted / RATE) for at_s, wanted, _, _ in ours.trace),
            COLOURS["load"],
            dash=' stroke-dasharray="5 4"',
        )
    )
    parts.append(line(((at_s, ready) for at_s, _, _, ready in plain.trace), COLOURS["plain"]))
    parts.append(line(((at_s, ready) for at_s, _, _, ready in ours.trace), COLOURS["autoscaler"]))
    parts.append(text(LEFT, 20, "replicas that the load keeps wholly busy", colour=COLOURS["load"]))
    parts.append(
        text(LEFT + 250, 20, f"autoscaler: {ours.short_s:.0f} s too few", colour=COLOURS["autoscaler"])
    )
    parts.append(
        text(LEFT + 440, 20, f"plain target tracker: {plain.short_s:.0f} s too few", colour=COLOURS["plain"])
    )
    return "\n".join([*parts, "</svg>"]) + "\n"
