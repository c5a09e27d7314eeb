"""The one model, as every rival runs it: onnxruntime with one thread that does not spin. Path: `BENCH_MODEL`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime as ort


def open_model() -> Any:
    """Return a function from rows to the probabilities of both classes."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
    return lambda rows: session.run(["probabilities"], {"input": np.asarray(rows, dtype=np.float32)})[0]
