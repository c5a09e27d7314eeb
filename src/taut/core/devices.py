"""Devices that run models: what they are called, and what an installation says of them."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Final, NamedTuple

import msgspec

from taut.core.errors import InvalidInput
from taut.core.units import parse_size

CPU: Final = "cpu"
CPU_USD_PER_HOUR: Final = 0.04
"""What a core costs an hour where nobody says otherwise; it decides nothing while there are only cores to choose from."""
_USD_MAX: Final = 10_000.0
_NAME: Final = re.compile(r"([a-z]+)(?::(\d{1,2}))?")


class _Kind(NamedTuple):
    """A kind of accelerator, as onnxruntime's documentation of its execution providers has it.

    number: the option that takes the device's number. memory: the one that bounds its memory, or "". paths: what a confined
    process must open beside libraries; `{}` is the number.
    """

    provider: str
    number: str
    options: dict[str, str]
    memory: str
    paths: tuple[str, ...]


_KINDS: Final = {
    "cuda": _Kind(
        "CUDAExecutionProvider",
        "device_id",
        # TF32 would round to ten bits, which is no longer what the model was judged by
        {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"},
        "gpu_mem_limit",
        ("/dev/nvidia{}", "/dev/nvidiactl", "/dev/nvidia-uvm", "/proc/driver/nvidia", "/usr/local/cuda"),
    ),
    "migraphx": _Kind("MIGraphXExecutionProvider", "device_id", {}, "", ("/dev/kfd", "/dev/dri", "/opt/rocm")),
    "openvino": _Kind("OpenVINOExecutionProvider", "", {"device_type": "GPU.{}"}, "", ("/dev/dri",)),
}  # fmt: skip


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """Something that runs a model.

    name: `cpu`, `cpu:4` for that many threads, `cuda:0`. provider, options: as onnxruntime calls them. usd_per_hour: of
    all of it. memory_bytes: of it that one worker may take; 0 is as much as is free. memory_option: by which the provider
    keeps to that, or "". paths: what a confined process must be able to open for it.
    """

    name: str
    provider: str
    options: dict[str, str] = {}
    threads: int = 1
    usd_per_hour: float
    memory_bytes: int = 0
    memory_option: str = ""
    paths: tuple[str, ...] = ()

    @property
    def accelerator(self) -> bool:
        return is_accelerator(self.name)

    def usd_per_million(self, us_per_row: float) -> float:
        """Return what a million rows cost on a device that has nothing else to do between them."""
        return self.usd_per_hour / 3600 * us_per_row


def is_accelerator(name: str) -> bool:
    return name.partition(":")[0] != CPU


def cpu(threads: int = 1, *, usd_per_hour: float = CPU_USD_PER_HOUR) -> Device:
    """Return so many threads of the CPU. usd_per_hour: of one core."""
    name = CPU if threads == 1 else f"{CPU}:{threads}"
    return Device(
        name=name, provider="CPUExecutionProvider", threads=threads, usd_per_hour=threads * usd_per_hour
    )


class Devices(msgspec.Struct, frozen=True, kw_only=True):
    """What an installation says that its machines have. cores: of this one, for all its workers together."""

    accelerators: tuple[Device, ...] = ()
    core_usd_per_hour: float = CPU_USD_PER_HOUR
    cores: int = 1


def check_placement(placement: str) -> str:
    """Return the word. Raises InvalidInput for one that names nothing that there is."""
    found = _NAME.fullmatch(placement)
    if placement in ("auto", CPU) or (found and found[1] in _KINDS):
        return placement
    raise InvalidInput(f'placement is {placement!r:.60}: write "auto" or "cpu"; {_meant(placement)}')


def parse_devices(text: str, *, cores: int) -> Devices:
    """Read `TAUT_DEVICES`: `cpu=USD` for a core and `NAME=USD[,MEMORY]` for an accelerator, an hour each, by blanks.

    Raises InvalidInput, saying what is not understood.
    """
    found: dict[str, Device] = {}
    core_usd = CPU_USD_PER_HOUR
    for word in text.split():
        name, _, said = word.partition("=")
        price, _, memory = said.partition(",")
        try:
            usd = float(price)
        except ValueError:
            usd = -1.0
        if not 0.0 <= usd <= _USD_MAX:
            raise InvalidInput(f"TAUT_DEVICES: {word[:60]!r} has no price: write {name[:20]}=USD, an hour")
        if name == CPU:
            core_usd = usd
            continue
        found[name] = _accelerator(name, usd, parse_size(memory) if memory else 0)
    return Devices(accelerators=tuple(found.values()), core_usd_per_hour=core_usd, cores=max(1, cores))


def _accelerator(name: str, usd_per_hour: float, memory_bytes: int) -> Device:
    parts = _NAME.fullmatch(name)
    kind = _KINDS.get(parts[1]) if parts else None
    if parts is None or kind is None or parts[2] is None:
        raise InvalidInput(f"TAUT_DEVICES: {name[:60]!r} is no device: {_meant(name)}")
    number = parts[2]
    options = {key: value.replace("{}", number) for key, value in kind.options.items()}
    if kind.number:
        options[kind.number] = number
    return Device(
        name=name, provider=kind.provider, options=options, usd_per_hour=usd_per_hour, memory_bytes=memory_bytes,
        memory_option=kind.memory, paths=tuple(path.replace("{}", number) for path in kind.paths),
    )  # fmt: skip


def _meant(word: str) -> str:
    near = get_close_matches(word.partition(":")[0], _KINDS, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}:0"?'
    return f'accelerators are {", ".join(_KINDS)} with their number, such as "cuda:0"'
