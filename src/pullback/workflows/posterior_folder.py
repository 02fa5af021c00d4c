"""Folders of `pullback uncertainty`: a posterior on disk, from which any number of samples is drawn."""

import json
from pathlib import Path

import torch

from pullback.errors import InputError
from pullback.files import read_scalar, read_transform, write_image, write_transform, write_transforms
from pullback.methods.pair.posterior import Posterior
from pullback.metrics.calibration import ALONG, deviation_in
from pullback.space import Displacement, Transform
from pullback.workflows.outputs import MAPS, RECORD

SAMPLES, TRANSFORM = "samples", "fixed_to_moving.h5"
POSTERIOR = "posterior"
"""The key of `run.json` under which sigma of the samples' noise is kept."""


def write_posterior(
    posterior: Posterior, transform: Transform, folder: Path, samples: int, generator: torch.Generator, like: str
) -> None:
    """Write the maps of a posterior in mm, its mean as the `transform` that it stands around, and samples of it.

    Args:
        samples: how many; 0 writes none.
        generator: of them.
        like: the file of the fixed image.
    """
    (folder / MAPS).mkdir()
    for name, image in posterior.maps.items():
        write_image(image, folder / MAPS / f"{name}.nii.gz", like)
    write_transform(transform, folder / TRANSFORM, on=posterior.mean.grid)
    if samples:
        names = [f"sample_{n + 1:03d}" for n in range(samples)]
        write_transforms(folder / SAMPLES, posterior.draws(samples, generator), names)


def read_posterior(folder: str | Path) -> Posterior:
    """Read the posterior that `uncertainty_files` wrote into a folder, from which any number of samples is drawn.

    Raises:
        InputError: a file of it is missing or cannot be read.
    """
    place = Path(folder)
    try:
        record = json.loads((place / RECORD).read_text())[POSTERIOR]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{place / RECORD}: not of `pullback uncertainty`, which writes {POSTERIOR!r} in it"
        ) from error
    transform = read_transform(place / TRANSFORM)
    maps = {name: read_scalar(place / MAPS / f"{name}.nii.gz") for name in ALONG[: transform.ndim]}
    grid = maps[ALONG[0]].grid
    deviation = deviation_in(maps, grid)
    assert deviation is not None
    mean = Displacement(transform.displacement(grid).to(deviation), grid)
    return Posterior(mean, deviation, float(record["smooth"]))


def is_posterior(folder: str | Path) -> bool:
    """Return whether a folder is one of `uncertainty_files`."""
    return (Path(folder) / MAPS / f"{ALONG[0]}.nii.gz").is_file() and (Path(folder) / RECORD).is_file()
