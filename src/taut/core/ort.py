"""onnxruntime with its telemetry off: official builds since 1.29 tell their maker of every model that is loaded.

Models' names, hashes and the machine's traits would leave the network of whoever runs taut. The switch is read when the
library is loaded, so it is set here, in the one place from which it is imported.
"""

from __future__ import annotations

import os
from typing import Any


def load_onnxruntime() -> Any:
    """Import onnxruntime, which takes half a second, and return the module."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def load_quantization() -> Any:
    """Import what onnxruntime quantises models with, under the same switch, and return the module."""
    load_onnxruntime()
    import onnxruntime.quantization

    return onnxruntime.quantization


def session_options(*, threads: int = 1) -> Any:
    """Return the options under which models are served: so many threads, none of which spins, and no word to the log."""
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
