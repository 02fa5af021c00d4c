"""Ensembles: several transforms of one pair, whoever made them, such as samples, registers, or a cohort's atlases.

They come one after the other and are not kept, so that hundreds of them need the memory of one.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from pullback.space.fields import Displacement
from pullback.space.grid import Grid
from pullback.space.image import Image, Labels
from pullback.space.pull import pull
from pullback.space.transform import Transform


@torch.no_grad()
def mean_and_deviation(transforms: Iterable[Transform], grid: Grid) -> tuple[Displacement, Tensor]:
    """Return the mean of transforms as a displacement on `grid`, and their deviation about it.

    The mean is of where each point goes: that of maps x + uₖ(x) is x + ū(x). Sums are updated one transform after the
    other (Welford 1962), so that nothing is lost where all of them are far from the identity and near to each other.

    Args:
        transforms: of one pair, or of one batch, in any number; looked at once.
        grid: where they are evaluated.

    Returns:
        The mean, and the standard deviation of each component, `(B, d, *grid.shape)` in voxels of `grid`, by n − 1; of
        a single transform that is NaN.

    Raises:
        ValueError: no transform.
    """
    count, mean, squares = 0, torch.zeros(0), torch.zeros(0)
    for transform in transforms:
        field = transform.displacement(grid)
        count += 1
        if count == 1:
            mean, squares = field.clone(), torch.zeros_like(field)
            continue
        off = field - mean
        mean = mean + off / count
        squares = squares + off * (field - mean)
    if not count:
        raise ValueError("mean_and_deviation: one transform or more expected, got none")
    deviation = (squares / (count - 1)).sqrt() if count > 1 else torch.full_like(mean, torch.nan)
    return Displacement(mean, grid), deviation


@torch.no_grad()
def label_probability(
    labels: Labels, transforms: Iterable[Transform], onto: Grid | Image | Labels
) -> tuple[Image, tuple[int, ...]]:
    """Return the share of transforms by which a voxel has each label.

    Args:
        labels: of the moving world.
        transforms: fixed → moving, of one pair; looked at once.
        onto: the grid of the answer, or something that lies on it.

    Returns:
        Shares `(1, labels, *spatial)`, and the label of each channel, sorted; background, 0, has the rest.

    Raises:
        ValueError: no transform.
    """
    grid = onto if isinstance(onto, Grid) else onto.grid
    values = [int(value) for value in labels.data.unique().tolist() if value != 0]
    wanted = torch.tensor(values, device=labels.data.device).view(1, -1, *[1] * grid.ndim)
    total, count = torch.zeros(1, len(values), *grid.shape, device=labels.data.device), 0
    for transform in transforms:
        total += pull(labels, transform, onto=grid).data == wanted
        count += 1
    if not count:
        raise ValueError("label_probability: one transform or more expected, got none")
    return Image(total / count, grid), tuple(values)
