"""How `taut top` looks: a screen that is drawn anew, or plain lines once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from taut.entrypoints import render
from taut.entrypoints.traffic import ALL, Row, Sample, Traffic

if TYPE_CHECKING:
    from rich.console import RenderableType

_COLUMNS: Final = (
    "endpoint", "gateway", "version", "req/s", "p50 ms", "p99 ms", "4xx/s", "5xx/s", "shed/s", "queue", "batch",
    "workers", "device", "guard µs", "cache",
)  # fmt: skip
_MIB: Final = 2**20
_EMPTY: Final = "no endpoint is served yet: release a model"


def once(traffic: Traffic) -> None:
    """Print one picture."""
    for said in _gateways(traffic.gateways):
        render.line(said)
    render.table(_COLUMNS, [_cells(row) for row in traffic.rows], empty=_EMPTY)


def screen(traffic: Traffic | None, *, trouble: str = "") -> RenderableType:
    """Return one picture for a terminal. trouble: why there is nothing newer."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(trouble, style="yellow")] if trouble else []
    if traffic is not None:
        parts += [Text(said) for said in _gateways(traffic.gateways)]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for at, name in enumerate(_COLUMNS):
            table.add_column(name, justify="left" if at < 3 else "right", no_wrap=True)
        for row in traffic.rows:
            style = "bold" if row.gateway == ALL else "dim"
            table.add_row(*(Text(cell, style=style) for cell in _cells(row)))
        parts.append(table if traffic.rows else Text(_EMPTY))
    parts.append(Text("Ctrl-C ends this; the platform goes on", style="dim"))
    return Group(*parts)


def _gateways(samples: Sequence[Sample]) -> list[str]:
    """Return a line on all gateways, and one on each that is not as it should be."""
    if not samples:
        return ["no gateway is connected to control"]
    ready = sum(1 for sample in samples if sample.ready and sample.meters is not None)
    said = [f"{ready} of {len(samples)} gateways ready, epoch {max(sample.epoch for sample in samples)}"]
    said += _memory(samples)
    for sample in samples:
        if sample.meters is None:
            said.append(f"  {sample.gateway}: no figures, last heard {sample.silent_s:.0f} s ago")
        elif not sample.ready:
            said.append(f"  {sample.gateway} is not ready: {'; '.join(sample.reasons)}")
        said += [
            f"  {name} on {sample.gateway} is not ready: {'; '.join(why)}"
            for name, why in sorted(sample.endpoints.items())
        ]
        lanes = () if sample.meters is None else sample.meters.lanes
        said += [
            f"  {lane.endpoints} on {sample.gateway} runs on the CPU in its accelerator's place: {lane.devices.lost}"
            for lane in lanes
            if lane.devices.lost
        ]
    return said


def _memory(samples: Sequence[Sample]) -> list[str]:
    """Return a line on models in memory, where some are not, or had to leave it."""
    read = [one.meters.models for one in samples if one.meters is not None and one.meters.models is not None]
    known, loaded = sum(one.known for one in read), sum(one.loaded for one in read)
    evictions, failures = sum(one.evictions for one in read), sum(one.failures for one in read)
    if known <= loaded and not evictions and not failures:
        return []
    used, budget = sum(one.used_bytes for one in read), sum(one.budget_bytes for one in read)
    loads = sum(one.load.count for one in read)
    said = (
        f"{loaded} of {known} models in memory, {used / _MIB:,.0f} of {budget / _MIB:,.0f} MiB; {loads} loads"
    )
    mean_ms = sum(one.load.total for one in read) / loads / 1e6 if loads else 0.0
    return [f"{said} of {mean_ms:.0f} ms, {evictions} evictions, {failures} failed"]


def _cells(row: Row) -> list[str]:
    workers = f"{row.workers}/{row.workers_wanted}" if row.workers_wanted else "inline"
    return [
        row.endpoint,
        row.gateway,
        row.version,
        f"{row.requests_per_s:,.1f}",
        _number(row.p50_ms, "{:.2f}"),
        _number(row.p99_ms, "{:.2f}"),
        f"{row.refused_per_s:,.1f}",
        f"{row.errors_per_s:,.1f}",
        f"{row.shed_per_s:,.1f}",
        str(row.queue_rows) if row.workers_wanted else "-",
        _number(row.batch_rows, "{:.1f}"),
        workers,
        row.devices or "cpu",
        _number(row.guard_us, "{:.1f}"),
        _number(row.cache_hits, "{:.0%}"),
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def live(next_: Callable[[], tuple[Traffic | None, str]]) -> None:
    """Draw until Ctrl-C. next_: waits for the next picture and returns it, with what is in its way."""
    from rich.live import Live

    known: Traffic | None = None
    with Live(screen(None, trouble="measuring …"), screen=True, auto_refresh=False) as shown:
        try:
            while True:
                traffic, trouble = next_()
                known = traffic or known
                shown.update(screen(known, trouble=trouble), refresh=True)
        except KeyboardInterrupt:
            return
