"""Cases, splits, and where they come from."""

from pullback.data.case import Case, Dataset, FileCase, Subject, Test, Train, Validation, ordered_pairs, pair_of
from pullback.data.cohort import Cohort
from pullback.data.folder import PairFolder
from pullback.data.learn2reg import Learn2Reg
from pullback.data.normalise import normalised

__all__ = [
    "Case",
    "Cohort",
    "Dataset",
    "FileCase",
    "Learn2Reg",
    "PairFolder",
    "Subject",
    "Test",
    "Train",
    "Validation",
    "normalised",
    "ordered_pairs",
    "pair_of",
]
