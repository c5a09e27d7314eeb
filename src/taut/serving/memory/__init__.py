"""Which models are in memory: loaded when they are asked for, evicted within a budget."""

from taut.serving.memory.heap import Heap, machine_memory_bytes
from taut.serving.memory.resident import Model, Resident
from taut.serving.memory.residents import NotLoaded, Residents, Want
from taut.serving.memory.shelf import Shelf

__all__ = ["Heap", "Model", "NotLoaded", "Resident", "Residents", "Shelf", "Want", "machine_memory_bytes"]
