"""The prediction log: each answer's record, written before the answer leaves, in segments that can be proved."""

from taut.serving.predictions.envelope import SegmentKeys
from taut.serving.predictions.incoming import Incoming
from taut.serving.predictions.log import PredictionLog
from taut.serving.predictions.reader import PredictionReader, Segment
from taut.serving.predictions.record import (
    CACHED,
    DEFAULT,
    LIVE,
    OUTCOMES,
    SHADOW_OF,
    SHADOWED,
    TAKEN,
    WITHOUT,
    Answer,
    FeatureRow,
    Lookup,
    Origin,
    PredictionRecord,
    RecordHead,
    decode_record,
    encode_head,
    encode_record,
)
from taut.serving.predictions.seal import Sealer, SegmentSeal, record_path, segment_root
from taut.serving.predictions.segment import Mark, SegmentWriter

__all__ = [
    "CACHED",
    "DEFAULT",
    "LIVE",
    "OUTCOMES",
    "SHADOWED",
    "SHADOW_OF",
    "TAKEN",
    "WITHOUT",
    "Answer",
    "FeatureRow",
    "Incoming",
    "Lookup",
    "Mark",
    "Origin",
    "PredictionLog",
    "PredictionReader",
    "PredictionRecord",
    "RecordHead",
    "Sealer",
    "Segment",
    "SegmentKeys",
    "SegmentSeal",
    "SegmentWriter",
    "decode_record",
    "encode_head",
    "encode_record",
    "record_path",
    "segment_root",
]
