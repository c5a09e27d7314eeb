"""Variants: smaller or faster forms of a trained model, made and measured in a job; whether one gains is a stated rule."""

from __future__ import annotations

from taut.lifecycle.training.variants.gain import Gain, gain_of
from taut.lifecycle.training.variants.making import make_variants
from taut.lifecycle.training.variants.values import VARIANTS, Figures, Made, Variant

__all__ = ["VARIANTS", "Figures", "Gain", "Made", "Variant", "gain_of", "make_variants"]
