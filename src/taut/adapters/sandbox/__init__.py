"""Confine a process before it runs code that is not ours; say what really held.

Used by jobs and by model workers. Nothing here needs root, and nothing pretends: what the kernel does not offer is
simply absent from the names that are returned.
"""

from __future__ import annotations

from taut.adapters.sandbox.confine import Rules, confine
from taut.adapters.sandbox.namespaces import (
    adopt_orphans,
    die_with_parent,
    enter_namespaces,
    prepare_mounts,
)

__all__ = ["Rules", "adopt_orphans", "confine", "die_with_parent", "enter_namespaces", "prepare_mounts"]
