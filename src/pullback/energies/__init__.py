"""Energies: functions of an alignment that are minimised."""

from pullback.energies.channels import OnChannels
from pullback.energies.energy import Energy, Sum, Weighted
from pullback.energies.information import MI, NMI
from pullback.energies.kinetic import Kinetic
from pullback.energies.labels import BoxMSE, LabelMSE, class_weights
from pullback.energies.lncc import LNCC, lncc
from pullback.energies.mind import MIND, mind
from pullback.energies.ngf import NGF
from pullback.energies.overlap import SoftDice, SoftHausdorff
from pullback.energies.points import LandmarkMSE
from pullback.energies.regularity import Bending, Diffusion
from pullback.energies.rician import Rician
from pullback.energies.similarity import MSE, NCC, ncc
from pullback.energies.ssim import SSIM

__all__ = [
    "LNCC",
    "MI",
    "MIND",
    "MSE",
    "NCC",
    "NGF",
    "NMI",
    "SSIM",
    "Bending",
    "BoxMSE",
    "Diffusion",
    "Energy",
    "Kinetic",
    "LabelMSE",
    "LandmarkMSE",
    "OnChannels",
    "Rician",
    "SoftDice",
    "SoftHausdorff",
    "Sum",
    "Weighted",
    "class_weights",
    "lncc",
    "mind",
    "ncc",
]
