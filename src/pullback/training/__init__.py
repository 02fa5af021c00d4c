"""One loop, and how networks learn in it."""

from pullback.training.augment import Apart, RandomAffine, seen_through
from pullback.training.checkpoint import load_tensors, load_weights, save_tensors, save_weights
from pullback.training.device import device_of
from pullback.training.interrupt import asked_to_stop
from pullback.training.measure import align, mean_of, measure, score
from pullback.training.memory import keep_freed_memory
from pullback.training.procedure import Once, Procedure, Task
from pullback.training.rounds import easy_first, rounds
from pullback.training.schedule import Cosine, Plateau, Poly
from pullback.training.supervision import Told, Unsupervised
from pullback.training.train import Drawn, Training, draw, seeded, train
from pullback.training.weighting import UncertaintyWeighted

__all__ = [
    "Apart",
    "Cosine",
    "Drawn",
    "Once",
    "Plateau",
    "Poly",
    "Procedure",
    "RandomAffine",
    "Task",
    "Told",
    "Training",
    "UncertaintyWeighted",
    "Unsupervised",
    "align",
    "asked_to_stop",
    "device_of",
    "draw",
    "easy_first",
    "keep_freed_memory",
    "load_tensors",
    "load_weights",
    "mean_of",
    "measure",
    "rounds",
    "save_tensors",
    "save_weights",
    "score",
    "seeded",
    "seen_through",
    "train",
]
