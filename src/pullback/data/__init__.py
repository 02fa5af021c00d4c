"""Cases, splits, and the datasets that they come from."""

from pullback.data.birl import BIRL
from pullback.data.case import (
    Case,
    Dataset,
    FileCase,
    PairDataset,
    Singles,
    Subject,
    Test,
    Train,
    Validation,
    ordered_pairs,
    pair_of,
    pairs_within,
    subject_of,
)
from pullback.data.dirlab import DirLab
from pullback.data.flying_chairs import FlyingChairs
from pullback.data.folder import PairFolder
from pullback.data.folds import Folds, dealt
from pullback.data.frames import FramePairs
from pullback.data.growing_brains import GrowingBrains
from pullback.data.ixi import PickledCase, PreparedIXI
from pullback.data.layers import innermost, layers, with_innermost
from pullback.data.learn2reg import Learn2Reg, write_dataset
from pullback.data.lesioned import LesionedPairs, PaintedLesion, PaintedPair
from pullback.data.lung import LungCase, LungKeypoints, LungScans, lung_fold, read_lung
from pullback.data.normalise import normalised, preprocessed
from pullback.data.phantoms.brain import BrainPhantom
from pullback.data.phantoms.breathing import Breathing, BreathingCase
from pullback.data.phantoms.growth import GrowthLaw
from pullback.data.phantoms.tori import Tori
from pullback.data.phantoms.ultrasound import Compressions
from pullback.data.prealigned import Prealigned
from pullback.data.restained import RestainedSections, Restaining
from pullback.data.series_folder import SeriesFolder
from pullback.data.synthesis import Synthesis, Synthetic

Stored = PairFolder | Learn2Reg | PreparedIXI | LungKeypoints
"""Datasets that are read from the folder of their `root`."""

__all__ = [
    "BIRL",
    "BrainPhantom",
    "Breathing",
    "BreathingCase",
    "Case",
    "Compressions",
    "Dataset",
    "DirLab",
    "FileCase",
    "FlyingChairs",
    "Folds",
    "FramePairs",
    "GrowingBrains",
    "GrowthLaw",
    "Learn2Reg",
    "LesionedPairs",
    "LungCase",
    "LungKeypoints",
    "LungScans",
    "PaintedLesion",
    "PaintedPair",
    "PairDataset",
    "PairFolder",
    "PickledCase",
    "Prealigned",
    "PreparedIXI",
    "RestainedSections",
    "Restaining",
    "SeriesFolder",
    "Singles",
    "Stored",
    "Subject",
    "Synthesis",
    "Synthetic",
    "Test",
    "Tori",
    "Train",
    "Validation",
    "dealt",
    "innermost",
    "layers",
    "lung_fold",
    "normalised",
    "ordered_pairs",
    "pair_of",
    "pairs_within",
    "preprocessed",
    "read_lung",
    "subject_of",
    "with_innermost",
    "write_dataset",
]
