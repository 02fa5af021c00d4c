"""Speckle: the envelope of many scatterers under a point spread, as ultrasound shows them."""

import math

import torch
from torch import Tensor

from pullback.numerics.separable import apply_along

FINE = 2  # scatterers to a voxel, along each axis
AXIAL, LATERAL = 1.0, 2.5  # standard deviations of the point spread, voxels
WAVELENGTH = 4.0  # voxels of the carrier along the beam


def envelope(scatterers: Tensor) -> Tensor:
    """Return the envelope, `(1, 1, *shape)`, of scatterers on a grid twice as fine, `(1, 2, *(2 shape − 1))`.

    They are summed under the point spread, whose squares sum to 1: the intensity of scatterers of unit variance is 1.
    """
    across, along = ((n + 1) // FINE for n in scatterers.shape[2:])
    wide, deep = (_spread(n, sigma).to(scatterers) for n, sigma in ((across, LATERAL), (along, AXIAL)))
    phase = 2 * math.pi / (FINE * WAVELENGTH) * torch.arange(scatterers.shape[3]).to(scatterers)
    real, imaginary = scatterers.split(1, 1)
    cosine, sine = phase.cos(), phase.sin()  # the carrier, taken off: demodulated
    parts = torch.cat([real * cosine - imaginary * sine, real * sine + imaginary * cosine], 1)
    return apply_along(deep, apply_along(wide, parts, 0), 1).square().sum(1, keepdim=True).sqrt()


def _spread(voxels: int, sigma: float) -> Tensor:
    """Return the matrix from scatterers along an axis to `voxels`, `(voxels, FINE · voxels − 1)`, rows of norm 1."""
    off = FINE * torch.arange(voxels, dtype=torch.float64)[:, None] - torch.arange(FINE * voxels - 1)
    weights = torch.exp(-0.5 * (off / (FINE * sigma)) ** 2)
    return weights / weights.norm(dim=1, keepdim=True)
