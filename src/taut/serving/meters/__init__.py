"""Meters: what a gateway counts of its requests, cheaply, and the readings that control shows of it."""

from taut.serving.meters.histogram import BATCH_ROWS, TIME_NS, Histogram, HistogramReading, quantile
from taut.serving.meters.meter import EndpointMeter, Meters, NodeMeter
from taut.serving.meters.reading import (
    LAYOUT,
    DevicesReading,
    EndpointReading,
    LaneReading,
    MeterReading,
    ModelsReading,
    NodeReading,
    Refusals,
    TraceReading,
    TrialReading,
    decode_reading,
    encode_reading,
    read_lanes,
)
from taut.serving.meters.usage import process_usage

__all__ = [
    "BATCH_ROWS",
    "LAYOUT",
    "TIME_NS",
    "DevicesReading",
    "EndpointMeter",
    "EndpointReading",
    "Histogram",
    "HistogramReading",
    "LaneReading",
    "MeterReading",
    "Meters",
    "ModelsReading",
    "NodeMeter",
    "NodeReading",
    "Refusals",
    "TraceReading",
    "TrialReading",
    "decode_reading",
    "encode_reading",
    "process_usage",
    "quantile",
    "read_lanes",
]
