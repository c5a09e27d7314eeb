"""Several versions of one endpoint under the same requests: who is answered by which, and what is counted of each."""

from taut.serving.trials.pairs import Pairs
from taut.serving.trials.reading import (
    ShadowReading,
    TrialReading,
    decode_shadows,
    decode_trials,
    encode_trials,
)
from taut.serving.trials.sampling import NOBODYS, Pairing, Sampling
from taut.serving.trials.sketch import Sketch
from taut.serving.trials.split import Arm, Side, Split, Trial, Trials, first_of, lots_of, unit_of

__all__ = [
    "NOBODYS",
    "Arm",
    "Pairing",
    "Pairs",
    "Sampling",
    "ShadowReading",
    "Side",
    "Sketch",
    "Split",
    "Trial",
    "TrialReading",
    "Trials",
    "decode_shadows",
    "decode_trials",
    "encode_trials",
    "first_of",
    "lots_of",
    "unit_of",
]
