"""One loop, and how networks learn in it."""

from pullback.training.checkpoint import load_weights, save_weights
from pullback.training.device import device_of
from pullback.training.measure import align, measure
from pullback.training.schedule import Cosine
from pullback.training.supervision import Unsupervised
from pullback.training.train import Training, draw, mean_of, seeded, train

__all__ = [
    "Cosine",
    "Training",
    "Unsupervised",
    "align",
    "device_of",
    "draw",
    "load_weights",
    "mean_of",
    "measure",
    "save_weights",
    "seeded",
    "train",
]
