"""Stream serving: events from a topic through the guarded core to another topic, each once in effect."""

from taut.serving.stream.letters import DeadLetter, Reason, read_letter
from taut.serving.stream.plan import Counts, StreamPlan, answer_id
from taut.serving.stream.processor import StreamProcessor
from taut.serving.stream.scoring import Scoring

__all__ = [
    "Counts",
    "DeadLetter",
    "Reason",
    "Scoring",
    "StreamPlan",
    "StreamProcessor",
    "answer_id",
    "read_letter",
]
