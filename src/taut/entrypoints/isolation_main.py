"""Confine this very process as a job would be and print, as JSON, what the kernel really enforced.

`python -P -m taut.entrypoints.isolation_main`: what `taut doctor` runs, since only trying tells.
"""

from __future__ import annotations

import json
import sys

from taut.bootstrap.sandbox import Rules, confine, enter_namespaces

_RULES = Rules(memory_bytes=4 * 2**30, file_bytes=2**20, cpu_seconds=60)


def main() -> int:
    held = confine(_RULES, entered=enter_namespaces())
    sys.stdout.write(json.dumps(held) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
