"""The tools people use today, each asked in its standard way and read back as a transform of ours.

A peer is a function without arguments that imports its tool (ImportError where it is not installed) and answers with
what registers the files of a pair. Each reads the files itself, and its clock runs from images in memory to the end of
its own registration. What it found is written as its users write it, and read by `pullback.files`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from pullback.files import read_image, read_transform
from pullback.space import Displacement, Transform


@dataclass(frozen=True)
class ImageFiles:
    """An ordered pair on disk; without labels where there are none."""

    name: str
    fixed: Path
    moving: Path
    fixed_labels: Path | None = None
    moving_labels: Path | None = None


@dataclass(frozen=True)
class Answer:
    """What a tool found and how long it took.

    `pulled` moves a file of labels onto the fixed grid by the tool's own hand, nearest, to an array of the grid's
    shape: it shows that `transform` says what the tool meant. None for our own.
    """

    transform: Transform
    seconds: float
    pulled: Callable[[Path], np.ndarray] | None = None


Tool = Callable[[ImageFiles, Path], Answer]
"""Registers a pair; the folder is for its files."""


def syn() -> Tool:
    """`ants.registration("SyN")`: affine and SyN on Mattes mutual information, all as ANTsPy has it."""
    return _ants("SyN")


def syn_cc() -> Tool:
    """`ants.registration("SyNCC")`: rigid and affine, then SyN on local cross-correlation of radius 4."""
    return _ants("SyNCC")


def _ants(kind: str) -> Tool:
    import ants

    def register(files: ImageFiles, folder: Path) -> Answer:
        fixed, moving = (ants.image_read(str(path)) for path in (files.fixed, files.moving))
        start = time.perf_counter()
        found = ants.registration(fixed, moving, kind, outprefix=f"{folder}/")["fwdtransforms"]
        seconds = time.perf_counter() - start
        warp, affine = (read_transform(path) for path in found)  # ANTs lists the outermost first, and x meets the last

        def pulled(labels: Path) -> np.ndarray:
            image = ants.image_read(str(labels))
            return ants.apply_transforms(fixed, image, found, interpolator="nearestNeighbor").numpy()

        return Answer(affine @ warp, seconds, pulled)

    return register


def elastix() -> Tool:
    """`itk.elastix_registration_method`: the default maps rigid, affine and bspline, four resolutions each."""
    import itk

    def register(files: ImageFiles, folder: Path) -> Answer:
        fixed, moving = (itk.imread(str(path), itk.F) for path in (files.fixed, files.moving))
        maps = itk.ParameterObject.New()
        for kind in ("rigid", "affine", "bspline"):
            maps.AddParameterMap(maps.GetDefaultParameterMap(kind))
        start = time.perf_counter()
        _, found = itk.elastix_registration_method(fixed, moving, parameter_object=maps)
        seconds = time.perf_counter() - start
        field = folder / "field.nii.gz"
        itk.imwrite(itk.transformix_deformation_field(moving, found, output_directory=str(folder)), str(field))

        def pulled(labels: Path) -> np.ndarray:
            found.SetParameter("ResampleInterpolator", "FinalNearestNeighborInterpolator")
            return itk.array_from_image(itk.transformix_filter(itk.imread(str(labels), itk.F), found)).T

        return Answer(read_transform(field), seconds, pulled)

    return register


def fireants() -> Tool:
    """FireANTs on the CPU with the settings of its quickstart: affine, then greedy, both on local cross-correlation.

    https://fireants.readthedocs.io/en/latest/quickstart: scales 4, 2, 1, window 5, Adam at 3e-3 and at 0.5.
    """
    from fireants.io import BatchedImages, Image
    from fireants.registration.affine import AffineRegistration
    from fireants.registration.greedy import GreedyRegistration

    def batch(path: Path) -> BatchedImages:
        return BatchedImages([Image(sitk.ReadImage(str(path), sitk.sitkFloat32), device="cpu")])

    def register(files: ImageFiles, folder: Path) -> Answer:
        fixed, moving = batch(files.fixed), batch(files.moving)
        common = {"fixed_images": fixed, "moving_images": moving, "cc_kernel_size": 5, "progress_bar": False}
        start = time.perf_counter()
        affine = AffineRegistration([4, 2, 1], [200, 100, 50], optimizer="Adam", optimizer_lr=3e-3, **common)
        affine.optimize()
        greedy = GreedyRegistration(
            [4, 2, 1],
            [200, 100, 25],
            deformation_type="compositive",
            smooth_grad_sigma=1,
            optimizer="adam",
            optimizer_lr=0.5,
            init_affine=affine.get_affine_matrix().detach(),
            **common,
        )
        greedy.optimize()
        seconds = time.perf_counter() - start
        field = folder / "field.nii.gz"
        greedy.save_as_ants_transforms(str(field))

        def pulled(labels: Path) -> np.ndarray:
            image = batch(labels)
            image.interpolate_mode = "nearest"
            return greedy.evaluate(fixed, image)[0, 0].detach().numpy().T

        return Answer(read_transform(field), seconds, pulled)

    return register


def convex_adam() -> Tool:
    """`convex_adam_pt` of the authors' package, its defaults, in float32. Both images on one grid."""
    from convexAdam.convex_adam_MIND import convex_adam_pt

    def register(files: ImageFiles, folder: Path) -> Answer:
        fixed, moving = (read_image(path) for path in (files.fixed, files.moving))
        start = time.perf_counter()
        cpu = torch.device("cpu")
        field = convex_adam_pt(fixed.data[0, 0], moving.data[0, 0], device=cpu, dtype=torch.float32)
        seconds = time.perf_counter() - start
        displacement = torch.from_numpy(field).float().movedim(-1, 0)[None]
        return Answer(Displacement(displacement, fixed.grid), seconds)

    return register
