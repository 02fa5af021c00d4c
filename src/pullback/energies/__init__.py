"""What is minimised."""

from pullback.energies.energy import Energy, Sum, Weighted
from pullback.energies.lncc import LNCC, lncc
from pullback.energies.regularity import Bending, Diffusion
from pullback.energies.similarity import MSE, NCC, ncc

__all__ = ["LNCC", "MSE", "NCC", "Bending", "Diffusion", "Energy", "Sum", "Weighted", "lncc", "ncc"]
