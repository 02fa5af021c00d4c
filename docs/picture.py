"""Makes the README's picture: two brains of the built-in cohort at 2 mm, aligned from coarse to fine.

python docs/picture.py
"""

from pathlib import Path

import pullback as pb
from pullback.numerics.smooth import gaussian
from pullback.report.pictures import picture


def main() -> None:
    pair = next(iter(pb.BrainPhantom(spacing=2.0).test))
    energy, still = pb.LNCC(9) + 3.0 * pb.Diffusion(), pb.Affine.identity(3)
    transform = still
    for spacing in (8.0, 4.0, 2.0):
        grid = pair.fixed.grid.at_spacing((spacing,) * 3)
        smooth = (pb.Image(gaussian(i.data, spacing / 2 - 1), i.grid) for i in (pair.fixed, pair.moving))
        coarse = pb.Pair(*(pb.pull(image, still, onto=grid) for image in smooth))
        start = pb.Displacement(transform.displacement(grid).float(), grid)
        transform, _ = pb.Descend(steps=60, step_size=0.1)(energy.on(coarse), start=start)
    picture(pb.Alignment(pair, transform), Path(__file__).with_name("brains.png"))


if __name__ == "__main__":
    main()
