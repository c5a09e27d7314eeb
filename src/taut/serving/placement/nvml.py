"""Free memory of a GPU, from NVIDIA's management library where its driver is installed.

Source: NVML API reference, nvmlInit_v2, nvmlDeviceGetHandleByIndex_v2, nvmlDeviceGetMemoryInfo. Asked this way it
counts what every process has taken, not only this one.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any, Final

LIBRARY: Final = "libnvidia-ml.so.1"


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def free_bytes(index: int, *, library: str = LIBRARY) -> int | None:
    """Return the free bytes of the GPU with this number; None where there is no driver, or it does not say.

    NVML numbers devices by their bus, CUDA by speed unless CUDA_DEVICE_ORDER=PCI_BUS_ID: with unlike GPUs in one machine
    they may differ.
    """
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        return None
    if nvml.nvmlInit_v2() != 0:
        return None
    with contextlib.closing(_Closing(nvml)):
        handle, memory = ctypes.c_void_p(), _Memory()
        if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)) != 0:
            return None
        if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) != 0:
            return None
        return int(memory.free)


class _Closing:
    def __init__(self, nvml: Any) -> None:
        self._nvml: Final = nvml

    def close(self) -> None:
        self._nvml.nvmlShutdown()
