"""The sandbox, for the mains of processes that run code which is not ours."""

from __future__ import annotations

from taut.adapters.sandbox import (
    Rules,
    adopt_orphans,
    confine,
    die_with_parent,
    enter_namespaces,
    prepare_mounts,
)

__all__ = ["Rules", "adopt_orphans", "confine", "die_with_parent", "enter_namespaces", "prepare_mounts"]
