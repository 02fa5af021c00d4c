"""One loop, and how networks learn in it."""

from pullback.training.checkpoint import load_weights, save_weights
from pullback.training.measure import align, measure
from pullback.training.supervision import Unsupervised
from pullback.training.train import Interrupted, Training, draw, mean_of, seeded, train

__all__ = [
    "Interrupted",
    "Training",
    "Unsupervised",
    "align",
    "draw",
    "load_weights",
    "mean_of",
    "measure",
    "save_weights",
    "seeded",
    "train",
]
