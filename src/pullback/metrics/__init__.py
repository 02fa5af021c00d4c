"""Metrics: numbers that are reported, `physical` by default, and `learn2reg` as that challenge computes them."""

from pullback.metrics import learn2reg
from pullback.metrics.anhir import RelativeTRE
from pullback.metrics.between import BetweenError
from pullback.metrics.calibration import Calibration
from pullback.metrics.intensity import SharedInformation, SquaredError
from pullback.metrics.length import Length, piece_lengths
from pullback.metrics.marked import LesionDice
from pullback.metrics.metric import Metric, foreground, numbers_of, of_one
from pullback.metrics.physical import (
    CentroidError,
    Correlation,
    Dice,
    EndPointError,
    Folding,
    HausdorffDistance,
    InverseError,
    Jaccard,
    LandmarkError,
    SDLogJ,
    StructuralSimilarity,
    SurfaceDistance,
)

STANDARD: tuple[Metric, ...] = (Dice(), Correlation(), Folding(), SDLogJ())
"""What is reported where nothing else is asked for; the first that answers chooses checkpoints."""

__all__ = [
    "STANDARD",
    "BetweenError",
    "Calibration",
    "CentroidError",
    "Correlation",
    "Dice",
    "EndPointError",
    "Folding",
    "HausdorffDistance",
    "InverseError",
    "Jaccard",
    "LandmarkError",
    "Length",
    "LesionDice",
    "Metric",
    "RelativeTRE",
    "SDLogJ",
    "SharedInformation",
    "SquaredError",
    "StructuralSimilarity",
    "SurfaceDistance",
    "foreground",
    "learn2reg",
    "numbers_of",
    "of_one",
    "piece_lengths",
]
