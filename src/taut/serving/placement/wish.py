"""Where an endpoint's model may run on this machine."""

from __future__ import annotations

import msgspec

from taut.core.devices import CPU, CPU_USD_PER_HOUR, Device, Devices, cpu
from taut.serving.runtime import Profile


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model may run, and what for. The default is one thread of the CPU.

    devices: to be tried beside one thread of the CPU, CPUs first. named: one of its accelerators is to be
    taken wherever it can serve, whatever that costs. core_usd_per_hour: of one core.
    """

    devices: tuple[Device, ...] = ()
    named: bool = False
    latency_s: float = 1.0
    profile: Profile = "latency"
    core_usd_per_hour: float = CPU_USD_PER_HOUR

    @property
    def accelerators(self) -> tuple[Device, ...]:
        return tuple(one for one in self.devices if one.accelerator)

    @property
    def paths(self) -> tuple[str, ...]:
        """Return what a confined process must be able to open."""
        return tuple(dict.fromkeys(path for one in self.devices for path in one.paths))

    def on_cpu(self) -> Wish:
        """Return the same without accelerators."""
        cpus = tuple(one for one in self.devices if not one.accelerator)
        return msgspec.structs.replace(self, devices=cpus, named=False)


def wish_for(devices: Devices, placement: str, *, workers: int, latency_s: float, profile: Profile) -> Wish:
    """Return what an endpoint's placement comes to here.

    placement: `auto`, `cpu`, or an accelerator, `cuda` for any of the kind. workers: of this model on this machine, that
    share its cores.
    """
    wanted = () if placement == CPU else devices.accelerators
    named = placement not in ("auto", CPU)
    if named:
        wanted = tuple(one for one in wanted if placement in (one.name, one.name.partition(":")[0]))
    threads = [2**power for power in range(1, 7) if 2**power <= devices.cores // max(1, workers)]
    cpus = tuple(cpu(count, usd_per_hour=devices.core_usd_per_hour) for count in threads)
    return Wish(
        devices=(*cpus, *wanted), named=named, latency_s=latency_s, profile=profile,
        core_usd_per_hour=devices.core_usd_per_hour,
    )  # fmt: skip
