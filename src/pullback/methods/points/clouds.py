"""Two clouds of points, whatever their size, to the map between them."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from pullback.errors import InputError
from pullback.example import PointPair
from pullback.methods.points.cyclical import untrained
from pullback.methods.points.graph_propagation import RegisterClouds
from pullback.numerics.graph import nearest
from pullback.space import Points, ThinPlate

GAP = 7.4  # mm from a keypoint of a lung to the nearest other, on average; `RegisterClouds` has its numbers from there
LEAST = 20  # points of a cloud


def match_clouds(
    fixed: Points,
    moving: Points,
    surfaces: tuple[Points, Points] | None = None,
    register: RegisterClouds = RegisterClouds(),
    network: nn.Module | None = None,
) -> ThinPlate:
    """The map between two clouds whose points are not matched, fixed → moving.

    Clouds that are larger or denser than the keypoints of lungs are looked at in another unit, so that their points are
    as far apart as those. Nothing is random: without a `network` the features are those of one that is drawn from a
    fixed seed.

    Args:
        fixed, moving: `(1, N, 3)` and `(1, M, 3)` in RAS mm, at least 20 of each.
        surfaces: points of the surface of the fixed and of the moving organ; some 400 and 4,000 are enough.
        register: how they are matched.
        network: points `(N, 3)` to features `(N, C)`.

    Raises:
        InputError: clouds in 2-D or several, too few points, or not finite, or all in one plane or place.
    """
    gap = max(_gap(points, name) for points, name in ((fixed, "fixed"), (moving, "moving")))
    middle, scale = fixed.data[0].double().mean(0), GAP / gap

    seen = PointPair(fixed, moving, *(surfaces or ())).each(lambda data: ((data.double() - middle) * scale).float())
    found = register(network or untrained(0), seen)
    kernels, constant, linear = found.weights.split([len(found.points), 1, 3])
    constant = constant / scale - middle @ linear
    return ThinPlate.of(
        replace(found, points=found.points / scale + middle, weights=torch.cat([kernels, constant, linear]))
    )


def gap_of(points: Tensor) -> float:
    """The mean distance of a point of a cloud `(N, d)` to the nearest other."""
    return float(nearest(points, points, 2)[0][:, 1].mean())


def _gap(points: Points, name: str) -> float:
    if len(points.data) > 1 or not points.data.isfinite().all():
        raise InputError(
            f"the {name} cloud: one cloud of finite coordinates expected, got {len(points.data)}, or others"
        )
    data = points.data[0].double()
    if data.shape[1] != 3 or len(data) < LEAST:
        raise InputError(
            f"the {name} cloud: at least {LEAST} points in 3-D expected, got {len(data)}, {data.shape[1]}-D"
        )
    gap = gap_of(data)
    if not gap > 0:
        raise InputError(f"the {name} cloud: its points lie in pairs on one another; leave each out but one")
    if int(torch.linalg.matrix_rank(data - data.mean(0))) < 3:
        raise InputError(f"the {name} cloud: all its points lie in one plane; points of a body are expected")
    return gap
