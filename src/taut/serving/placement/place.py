"""Loading a model on the device that serves it best: each is tried, guarded, compared with the CPU, and priced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from taut.core.devices import Device, cpu
from taut.core.errors import TautError
from taut.core.schema import ModelSignature
from taut.serving.placement.choice import SAID_LENGTH, Placement, Trial, choose, meets, priced
from taut.serving.placement.golden import Golden
from taut.serving.placement.host import DeviceFailed, Host
from taut.serving.placement.placed import PlacedModel
from taut.serving.placement.wish import Wish
from taut.serving.runtime import SIZINGS, LoadedModel, OnnxModel, load

_RESERVE_BYTES: Final = 256 * 2**20
"""Of an accelerator, left for whoever shares it: its driver's own needs grow with use."""
_TRIALS_S: Final = 15.0
"""After so long no further device is tried: somebody waits for the model."""
_MIB: Final = 2**20


def place(model: bytes, signature: ModelSignature, wish: Wish, host: Host) -> tuple[LoadedModel, Placement]:
    """Load an ONNX model where it serves its endpoint best, and say why it runs there.

    One thread of the CPU is always tried, and is what others are compared with; more threads only while fewer are too
    slow for the endpoint's latency; then the accelerators. Raises what `load` does for a model that the CPU cannot load:
    that an accelerator cannot is a refusal among the trials.
    """
    return _Placing(model, signature, wish, host).best()


class _Placing:
    """One model, tried on one device after the other. Of those that could serve, only what is needed stays loaded."""

    def __init__(self, model: bytes, signature: ModelSignature, wish: Wish, host: Host) -> None:
        self._model: Final = model
        self._signature: Final = signature
        self._wish: Final = wish
        self._host: Final = host
        self._began_s: Final = host.counter_s()
        self._one_core: Final = cpu(usd_per_hour=wish.core_usd_per_hour)
        self._reference: Final = self._load(lambda data: host.open(data, self._one_core, memory_bytes=0))
        self._trials: Final = [priced(self._one_core, self._reference.cost, wish)]
        self._placement = choose(self._trials, wish)
        self._best: LoadedModel = self._reference

    def best(self) -> tuple[LoadedModel, Placement]:
        wish = self._wish
        for device in wish.devices:
            if not device.accelerator and not any(meets(one.cost, wish) for one in self._trials):
                self._consider(device, self._on_cpu)
        if wish.accelerators:
            golden = Golden(self._reference)
            for device in wish.accelerators:
                self._consider(device, lambda device: self._on_accelerator(device, golden))
        self._placement = choose(self._trials, wish)
        if not self._placement.accelerated:
            return self._best, self._placement
        return PlacedModel(self._best, self._reference, self._placement), self._placement

    def _consider(self, device: Device, attempt: Callable[[Device], OnnxModel]) -> None:
        """Try a device, and keep its model where it is the best so far."""
        try:
            if self._host.counter_s() > self._began_s + _TRIALS_S:
                raise DeviceFailed(f"not tried: {_TRIALS_S:g} s went by with the others", again=False)
            found = attempt(device)
        except TautError as error:
            again = error.again if isinstance(error, DeviceFailed) else device.accelerator
            refused = error.message[:SAID_LENGTH]
            self._trials.append(Trial(device=device.name, refused=refused, again=again))
            return
        self._trials.append(priced(device, found.cost, self._wish))
        placement = choose(self._trials, self._wish)
        if placement.device == device.name:
            self._placement, self._best = placement, found

    def _on_cpu(self, device: Device) -> OnnxModel:
        return self._load(lambda data: self._host.open(data, device, memory_bytes=0))

    def _on_accelerator(self, device: Device, golden: Golden) -> OnnxModel:
        """Load within the memory that is left, compare with the CPU, and run the largest batch that there will be.

        Raises DeviceFailed, saying what is wrong with the device for this model.
        """
        allowed = self._room(device)
        found = self._load(lambda data: self._host.open(data, device, memory_bytes=allowed))
        differs = golden.differs(found)
        if differs:
            raise DeviceFailed(differs, again=False)
        self._fill(found)
        free = self._host.free_bytes(device)
        if free is not None and free < _RESERVE_BYTES:
            raise DeviceFailed(f"it leaves {free / _MIB:,.0f} MiB of {device.name}, {_least()} are kept free")
        return found

    def _room(self, device: Device) -> int:
        """Return the bytes that the model may take there, 0 where nobody says. Raises DeviceFailed where they are too few."""
        free = self._host.free_bytes(device)
        left = None if free is None else free - _RESERVE_BYTES
        bounds = [one for one in (device.memory_bytes or None, left) if one is not None]
        if not bounds:
            return 0
        if min(bounds) < len(self._model):
            said = (
                f"the model has {len(self._model) / _MIB:,.1f} MiB, and {max(0, min(bounds)) / _MIB:,.1f} MiB"
            )
            raise DeviceFailed(f"{said} of {device.name} are for it: {_least()} are kept free")
        return min(bounds)

    def _fill(self, model: OnnxModel) -> None:
        """Run the largest batch once, so that what it takes of the device is taken while nobody waits."""
        if model.cost is None:
            return
        rows = SIZINGS[self._wish.profile].batch_rows(model.cost, self._wish.latency_s)
        model.raw(model.neutral(rows))

    def _load(self, open_session: Callable[[bytes], Any]) -> OnnxModel:
        return load(self._model, self._signature, open_session=open_session, counter_s=self._host.counter_s)


def _least() -> str:
    return f"{_RESERVE_BYTES / _MIB:,.0f} MiB"
