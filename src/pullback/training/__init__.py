"""The training loop, and the supervisions, evaluations and procedures that it runs."""

from pullback.numerics.device import device_of
from pullback.training.augment import (
    DrawnPoints,
    IndependentAffines,
    InTurn,
    OneAffine,
    RandomAffine,
    RandomFlips,
    seen_through,
)
from pullback.training.checkpoint import load_tensors, load_weights, save_tensors, save_weights
from pullback.training.cyclical import Cyclical, Labelled, Labelling, Several, easy_first
from pullback.training.evaluation import Evaluation, ExampleEvaluation, PairEvaluation, Row, VideoEvaluation
from pullback.training.interrupt import asked_to_stop
from pullback.training.measure import align, evaluating, in_words, mean_of, measure, score
from pullback.training.memory import keep_freed_memory
from pullback.training.patches import RandomPatches
from pullback.training.perturbed import Perturbed, RandomPose
from pullback.training.player import Player
from pullback.training.procedure import Once, Procedure, Task
from pullback.training.schedule import Cosine, Decay, Plateau, Poly, Steps
from pullback.training.segmenting import Segmenting, segmentation_dice
from pullback.training.supervision import KnownTransform, LevelledAlignment, Unsupervised
from pullback.training.teacher import answer_of
from pullback.training.train import Examples, Training, draw, seeded
from pullback.training.warps import RandomIntensities, RandomWarps
from pullback.training.weighting import UncertaintyWeighted

__all__ = [
    "Cosine",
    "Cyclical",
    "Decay",
    "DrawnPoints",
    "Evaluation",
    "ExampleEvaluation",
    "Examples",
    "InTurn",
    "IndependentAffines",
    "KnownTransform",
    "Labelled",
    "Labelling",
    "LevelledAlignment",
    "Once",
    "OneAffine",
    "PairEvaluation",
    "Perturbed",
    "Plateau",
    "Player",
    "Poly",
    "Procedure",
    "RandomAffine",
    "RandomFlips",
    "RandomIntensities",
    "RandomPatches",
    "RandomPose",
    "RandomWarps",
    "Row",
    "Segmenting",
    "Several",
    "Steps",
    "Task",
    "Training",
    "UncertaintyWeighted",
    "Unsupervised",
    "VideoEvaluation",
    "align",
    "answer_of",
    "asked_to_stop",
    "device_of",
    "draw",
    "easy_first",
    "evaluating",
    "in_words",
    "keep_freed_memory",
    "load_tensors",
    "load_weights",
    "mean_of",
    "measure",
    "save_tensors",
    "save_weights",
    "score",
    "seeded",
    "seen_through",
    "segmentation_dice",
]
