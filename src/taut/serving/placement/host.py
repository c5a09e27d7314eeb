"""What a machine offers to models: sessions on its devices, how much memory they have left, and a clock."""

from __future__ import annotations

import time
from typing import Any, Final, Protocol

from taut.core.devices import Device
from taut.core.errors import Unavailable
from taut.core.ort import load_onnxruntime, session_options
from taut.serving.placement.nvml import free_bytes as cuda_free_bytes


class DeviceFailed(Unavailable):
    """A device cannot run the model: another is taken.

    again: whether it may be able to later.
    """

    def __init__(self, message: str, *, again: bool = True) -> None:
        super().__init__(message)
        self.again: Final = again


class Host(Protocol):
    """The machine under a worker. One process uses it, from one thread.

    Guarantees: a session computes on the device that was named, and on no other in silence; what it does then is timed
    by `counter_s`. Not guaranteed: that a device which was there is still there.
    """

    def open(self, model: bytes, device: Device, *, memory_bytes: int) -> Any:
        """Return an onnxruntime session, or what behaves like one, of a model in memory.

        memory_bytes: of the device that it may take, where the provider can keep to it; 0 is no bound.
        Raises DeviceFailed where the device is not there or does not take the model; whatever onnxruntime raises for a
        model that nobody can load.
        """
        ...

    def free_bytes(self, device: Device) -> int | None:
        """Return the memory that the device has left for everybody, None where that cannot be known."""
        ...

    def counter_s(self) -> float:
        """Return a time that never goes back."""
        ...


class OrtHost:
    """This machine, through onnxruntime as it was installed."""

    def open(self, model: bytes, device: Device, *, memory_bytes: int) -> Any:
        ort = load_onnxruntime()
        options = session_options(threads=device.threads)
        if not device.accelerator:
            return ort.InferenceSession(model, options, providers=[device.provider])
        if device.provider not in ort.get_available_providers():
            said = f"onnxruntime {ort.__version__} as it is installed here has no {device.provider}"
            raise DeviceFailed(f"{said}: install a build that has", again=False)
        if device.provider == "CUDAExecutionProvider":
            ort.preload_dlls(msvc=False)  # of packages beside onnxruntime, which no path leads to
        settings = dict(device.options)
        if memory_bytes and device.memory_option:
            settings[device.memory_option] = str(memory_bytes)
        try:
            session = ort.InferenceSession(
                model, options, providers=[(device.provider, settings)], enable_fallback=0
            )
        except Exception as error:
            # the CPU has loaded the same model before, so it is the device, or this kind of it
            raise DeviceFailed(first_line(error)) from error
        if device.provider not in session.get_providers():
            # onnxruntime takes the CPU where a provider cannot be set up
            raise DeviceFailed(f"{device.provider} could not be set up: see the gateway's log")
        return session

    def free_bytes(self, device: Device) -> int | None:
        if device.provider != "CUDAExecutionProvider":
            return None
        return cuda_free_bytes(int(device.options["device_id"]))

    def counter_s(self) -> float:
        return time.perf_counter()


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
