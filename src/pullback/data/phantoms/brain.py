"""A built-in cohort of brains that differ by known diffeomorphisms. It needs nothing but the installed package."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pullback.data.case import LOADED, Subject, Test, Train, Validation, ordered_pairs
from pullback.data.normalise import normalised
from pullback.data.synthesis import Synthetic
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import gaussian
from pullback.space import Affine, Grid, Image, Labels, Velocity, pull

BOX = ((-76.0, 76.0), (-112.0, 80.0), (-76.0, 84.0))  # RAS mm around the template's brain, with a margin


@dataclass(frozen=True)
class BrainPhantom:
    """A cohort made from nilearn's MNI152 template, with a deformation, contrast, bias and noise for each subject.

    Subject s is the template pulled through ψ_s = exp(v_s), v_s a random stationary velocity, so that between subjects
    the true transform is known: ψ_m⁻¹ ∘ ψ_f takes fixed to moving. Labels: 1 grey matter, 2 white matter, 3 the rest of
    the brain (mostly cerebrospinal fluid), the most probable of the template's tissue maps after the same pull. Images
    are skull-stripped as the template is: outside the brain they are 0, without noise.

    Attributes:
        spacing: of the isotropic grid, mm.
        train_subjects, validation_subjects, test_subjects: number of subjects in each split.
        motion: (smoothness, size) of the velocities' parts: Gaussian noise smoothed to that sigma in mm, of that
            standard deviation in mm.
        gamma: intensities are raised to a power drawn log-uniformly between 1/gamma and gamma.
        bias: standard deviation of the logarithm of a multiplicative field, smooth at 40 mm.
        noise: standard deviation of Gaussian noise; the template's brightest tissue is near 1.
        seed: of everything that is drawn.
        synthetic: as in `PairFolder`.
    """

    spacing: float = 4.0
    train_subjects: int = 16
    validation_subjects: int = 3
    test_subjects: int = 4
    motion: tuple[tuple[float, float], ...] = ((24.0, 4.0), (12.0, 1.0))
    gamma: float = 1.3
    bias: float = 0.1
    noise: float = 0.02
    seed: int = 0
    synthetic: Synthetic | None = None

    def _cases(self, first: int, count: int) -> tuple["PhantomCase", ...]:
        return tuple(PhantomCase(self, number) for number in range(first, first + count))

    @property
    def centred(self) -> bool:
        return False

    @property
    def train(self) -> Train:
        return Train(self._cases(0, self.train_subjects), of=self)

    @property
    def validation(self) -> Validation:
        cases = self._cases(self.train_subjects, self.validation_subjects)
        return Validation(ordered_pairs(cases)) if self.synthetic is None else self.synthetic.listed(Validation, cases)

    @property
    def test(self) -> Test:
        cases = self._cases(self.train_subjects + self.validation_subjects, self.test_subjects)
        return Test(ordered_pairs(cases)) if self.synthetic is None else self.synthetic.listed(Test, cases)


@dataclass(frozen=True)
class PhantomCase:
    """A case that is subject `number` of a cohort."""

    cohort: BrainPhantom
    number: int

    @property
    def name(self) -> str:
        return f"phantom-{self.number:02d}"

    def load(self) -> Subject:
        return LOADED.get(self, lambda: _make(self.cohort, self.number))


def _make(cohort: BrainPhantom, number: int) -> Subject:
    generator = make_generator(cohort.seed, number)
    template = _template(cohort.spacing)
    grid = template.grid
    velocity = torch.zeros(1, grid.ndim, *grid.shape)
    for smoothness, size in cohort.motion:
        part = _noise((1, grid.ndim, *grid.shape), smoothness / cohort.spacing, generator)
        velocity += part * (size / cohort.spacing)
    to_template = Velocity(velocity * _stillness(grid, 16 / cohort.spacing), grid)
    maps = pull(template, to_template, onto=grid).data.clamp(0, 1)
    brain, tissues = maps[:, :1], maps[:, 1:]
    data = brain ** (cohort.gamma ** (2 * torch.rand((), generator=generator) - 1))
    data = data * torch.exp(cohort.bias * _noise((1, 1, *grid.shape), 40 / cohort.spacing, generator))
    data = (data + cohort.noise * torch.randn(data.shape, generator=generator)).clamp(min=0) * (brain > 0.05)
    inside = tissues.sum(1, keepdim=True) > 0.5
    labels = (tissues.argmax(1, keepdim=True) + 1) * inside
    image, name = normalised(Image(data, grid)), PhantomCase(cohort, number).name
    return Subject(image, Labels(labels, grid), to_template, name=name)


def _noise(shape: tuple[int, ...], sigma: float, generator: torch.Generator) -> Tensor:
    """Return smoothed Gaussian noise of unit standard deviation per channel; `sigma` in voxels."""
    smooth = gaussian(torch.randn(shape, generator=generator), sigma)
    return smooth / smooth.std(dim=tuple(range(2, smooth.ndim)), keepdim=True)


def _stillness(grid: Grid, width: float) -> Tensor:
    """Return a weight of 0 at the border of the grid that rises to 1 within `width` voxels, to keep motion inside."""
    where = grid.voxels(torch.zeros(()))
    last = torch.tensor(grid.shape).view(-1, *[1] * grid.ndim) - 1
    depth = torch.minimum(where, last - where).amin(0)
    return torch.sin(depth.clamp(max=width) / width * torch.pi / 2) ** 2


@lru_cache(maxsize=4)
def _template(spacing: float) -> Image:
    """Return the template on the cohort's grid: intensity, then the probabilities of grey, white and other tissue."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template

    shape = tuple(round((high - low) / spacing) for low, high in BOX)
    affine = torch.diag(torch.tensor([spacing, spacing, spacing, 1.0], dtype=torch.float64))
    affine[:-1, -1] = torch.tensor([low + spacing / 2 for low, _ in BOX], dtype=torch.float64)
    resolution = 1 if spacing < 2 else 2
    loaders = (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    volumes = [load(resolution=resolution) for load in loaders]
    head, grey, white = (torch.from_numpy(np.asarray(v.dataobj, dtype=np.float32)) for v in volumes)
    other = ((head > 0.1 * head.max()).float() - grey - white).clamp(min=0)
    grid = Grid(tuple(head.shape), torch.from_numpy(np.asarray(volumes[0].affine, dtype=np.float64)))
    maps = torch.stack([head / head.max(), grey, white, other])[None]
    sigma = spacing / resolution / 2.355 if spacing > resolution else 0.0  # half the height at one new voxel
    return pull(Image(gaussian(maps, sigma), grid), Affine.identity(3), onto=Grid(shape, affine))
