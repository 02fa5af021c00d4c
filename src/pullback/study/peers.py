"""Registration tools of other people, each called in its standard way."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from rich.console import Console

from pullback.alignment import Alignment, Pair
from pullback.errors import InputError
from pullback.files import read_image, read_transform, write
from pullback.files.transforms.ants import read_ants
from pullback.records.manifest import forget_peak_memory, peak_memory_mb
from pullback.space import Affine, Displacement, Image, Labels, Transform
from pullback.study.arms import Trial, Unit, about_data
from pullback.study.evaluate import subjects
from pullback.study.recipe import as_data
from pullback.training import Row

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Answer:
    """The answer of a tool.

    Attributes:
        transform: fixed → moving, as `pullback.files` reads it.
        seconds: of the registration alone, images in memory.
        pulled: moves a file of labels onto the fixed grid by the tool's own hand, nearest, to an array of the grid's
            shape; None where it has no hand of its own.
    """

    transform: Transform
    seconds: float
    pulled: Callable[[Path], np.ndarray] | None = None


class Peer(ABC):
    """A tool that registers two files."""

    @abstractmethod
    def __call__(self, fixed: Path, moving: Path, folder: Path) -> Answer:
        """Register two files; the folder is for the tool's own files.

        Raises:
            InputError: it is not installed.
        """


@dataclass(frozen=True)
class PeerArm:
    """An arm that is a tool on the test pairs, which are written to files for it, and measured as ours are, on the CPU.

    Beside the numbers of the evaluation, a row has the tool's own `seconds` and `peak MB`. Where a tool can move
    labels, the first number is measured on those as well, as `own …`: it must equal that of its transform.
    """

    peer: Peer

    def unit(self, trial: Trial) -> Unit:
        """Return the work, which may end without rows where the tool is not installed or cannot take the images."""
        about = [as_data(self.peer), about_data(trial.data), as_data(trial.evaluates)]
        return trial.unit(self, about, seeded=False, may_lack=True)

    def rows(self, unit: Unit, console: Console) -> Iterator[Row]:
        """Yield one row per pair."""
        test = unit.trial.data.test
        for pair, subject in zip(test, subjects(test), strict=True):
            with TemporaryDirectory() as folder:
                parts = {"fixed": pair.fixed, "moving": pair.moving, "labels": pair.moving_labels}
                paths = {name: Path(folder) / f"{name}.nii.gz" for name in parts}
                for name, part in parts.items():
                    if part is not None:
                        write(part, paths[name])
                forget_peak_memory(CPU)
                answer = self.peer(paths["fixed"], paths["moving"], Path(folder))
                peak = round(peak_memory_mb(CPU), 1)
                row = _measured(answer.transform, pair, unit.trial)
                own = _by_own_hand(answer, pair, paths["labels"], unit.trial)
            yield row | {"seconds": answer.seconds, "peak MB": peak, "subject": subject} | own


def _by_own_hand(answer: Answer, pair: Pair, labels: Path, trial: Trial) -> Row:
    """Return the first number of the evaluation for labels as the tool moves them."""
    if answer.pulled is None or pair.moving_labels is None or pair.fixed_labels is None:
        return {}
    moved = torch.from_numpy(answer.pulled(labels).copy())[None, None].to(torch.int32)
    in_place = replace(pair, moving=pair.fixed, moving_labels=Labels(moved, pair.fixed.grid), truth=None)
    row = _measured(Affine.identity(pair.fixed.grid.ndim), in_place, trial)
    name = next(name for name, value in row.items() if not isinstance(value, str))
    return {f"own {name}": row[name]}


def _measured(transform: Transform, pair: Pair, trial: Trial) -> Row:
    def known(fixed: Image, moving: Image) -> Alignment:
        return Alignment(Pair(fixed, moving), transform)

    return next(iter(trial.evaluates((pair,)).rows(known, CPU)))


@dataclass(frozen=True)
class ANTs(Peer):
    """The tool `ants.registration` (Avants et al. 2008), with ANTsPy's defaults.

    It samples by chance and adds up by threads, so what it finds differs from run to run, over one pair by some points
    of Dice; antspyx 0.6 is the same each time only with one thread.

    Attributes:
        kind: `"SyN"`, affine and SyN by mutual information, or `"SyNCC"`, rigid and affine, then SyN by local
            cross-correlation, which takes minutes; or another of ANTsPy's `type_of_transform`.
        metric: what SyN itself climbs, ANTsPy's `syn_metric`: `"mattes"`, `"CC"`, `"meansquares"` or `"demons"`; ""
            leaves it to the kind.

    Raises:
        InputError: another metric than local cross-correlation for `"SyNCC"`, which would not heed it.
    """

    kind: str = "SyN"
    metric: str = ""

    def __post_init__(self) -> None:
        if self.kind == "SyNCC" and self.metric:
            raise InputError(
                f"SyNCC climbs local cross-correlation whatever syn_metric says: ANTs('SyN', {self.metric!r}) heeds it"
            )

    def __call__(self, fixed: Path, moving: Path, folder: Path) -> Answer:
        """Register two images of one channel.

        Raises:
            InputError: antspyx is not installed.
        """
        ants = _installed("ants", f"{self.kind} needs antspyx: pip install 'pullback[peers]'")
        images = [ants.image_read(str(path)) for path in (fixed, moving)]
        start = time.perf_counter()
        chosen = {"syn_metric": self.metric} if self.metric else {}
        found = ants.registration(*images, self.kind, outprefix=f"{folder}/", **chosen)["fwdtransforms"]
        seconds = time.perf_counter() - start

        def pulled(labels: Path) -> np.ndarray:
            image = ants.image_read(str(labels))
            return ants.apply_transforms(images[0], image, found, interpolator="nearestNeighbor").numpy()

        return Answer(read_ants(found), seconds, pulled)


@dataclass(frozen=True)
class Elastix(Peer):
    """The tool `itk.elastix_registration_method` (Klein et al. 2010), by its default parameter maps at four
    resolutions."""

    maps: tuple[str, ...] = ("rigid", "affine", "bspline")

    def __call__(self, fixed: Path, moving: Path, folder: Path) -> Answer:
        """Register two images of one channel.

        Raises:
            InputError: itk-elastix is not installed.
        """
        itk = _installed("itk", "elastix needs itk-elastix: pip install 'pullback[peers]'")
        images = [itk.imread(str(path), itk.F) for path in (fixed, moving)]
        maps = itk.ParameterObject.New()
        for kind in self.maps:
            maps.AddParameterMap(maps.GetDefaultParameterMap(kind))
        start = time.perf_counter()
        _, found = itk.elastix_registration_method(*images, parameter_object=maps)
        seconds = time.perf_counter() - start
        field = folder / "field.nii.gz"
        itk.imwrite(itk.transformix_deformation_field(images[1], found, output_directory=str(folder)), str(field))

        def pulled(labels: Path) -> np.ndarray:
            found.SetParameter("ResampleInterpolator", "FinalNearestNeighborInterpolator")
            return itk.array_from_image(itk.transformix_filter(itk.imread(str(labels), itk.F), found)).T

        return Answer(read_transform(field), seconds, pulled)


@dataclass(frozen=True)
class Greedy(Peer):
    """The tool greedy (Yushkevich et al. 2016) by its Python package, as its guide tells: affine, then a free field.

    Both climb local cross-correlation, from the centres of the images on.

    Attributes:
        metric: of both stages.
        affine, field: iterations on three levels, the coarsest first.
    """

    metric: str = "NCC 2x2x2"
    affine: str = "100x50x10"
    field: str = "100x100x50"

    def __call__(self, fixed: Path, moving: Path, folder: Path) -> Answer:
        """Register two images of one channel.

        Raises:
            InputError: picsl-greedy is not installed.
        """
        package = _installed("picsl_greedy", "greedy needs picsl-greedy: pip install 'pullback[peers]'")
        images = {name: sitk.ReadImage(str(path), sitk.sitkFloat32) for name, path in (("f", fixed), ("m", moving))}
        flat = images["f"].GetDimension() == 2
        tool = package.Greedy2D() if flat else package.Greedy3D()
        common = f"-V 0 -i f m -m {self.metric.replace('2x2x2', '2x2') if flat else self.metric}"
        start = time.perf_counter()
        tool.execute(f"{common} -a -ia-image-centers -n {self.affine} -o affine", affine=None, **images)
        tool.execute(f"{common} -it affine -n {self.field} -o warp", warp=None)
        seconds = time.perf_counter() - start
        sitk.WriteImage(tool["warp"], str(folder / "field.nii.gz"))

        def pulled(labels: Path) -> np.ndarray:
            given = {"labels": sitk.ReadImage(str(labels), sitk.sitkFloat32)}
            tool.execute("-V 0 -rf f -ri NN -rm labels moved -r warp affine", moved=None, **given)
            return sitk.GetArrayFromImage(tool["moved"]).T

        affine = Affine(torch.from_numpy(np.asarray(tool["affine"], np.float64)))
        return Answer(affine @ read_transform(folder / "field.nii.gz"), seconds, pulled)


@dataclass(frozen=True)
class FireANTs(Peer):
    """The tool FireANTs (Jena et al. 2024) on the CPU with the settings of its quickstart.

    These are affine, then greedy, both by local cross-correlation; scales 4, 2, 1, window 5, Adam at 3e-3 and at 0.5.

    It asks for another SimpleITK than this package, and runs with ours from a folder of its own:
    `pip install --no-deps --target SITE fireants tqdm`, then `PYTHONPATH=SITE`.
    """

    def __call__(self, fixed: Path, moving: Path, folder: Path) -> Answer:
        """Register two images of one channel.

        Raises:
            InputError: FireANTs is not installed.
        """
        needs = "FireANTs: pip install --no-deps --target SITE fireants tqdm, and PYTHONPATH=SITE"
        io, affines, greedies = (
            _installed(f"fireants.{name}", needs) for name in ("io", "registration.affine", "registration.greedy")
        )

        def batch(path: Path) -> Any:
            return io.BatchedImages([io.Image(sitk.ReadImage(str(path), sitk.sitkFloat32), device="cpu")])

        images = [batch(path) for path in (fixed, moving)]
        common = {"fixed_images": images[0], "moving_images": images[1], "cc_kernel_size": 5, "progress_bar": False}
        start = time.perf_counter()
        affine = affines.AffineRegistration([4, 2, 1], [200, 100, 50], optimizer="Adam", optimizer_lr=3e-3, **common)
        affine.optimize()
        greedy = greedies.GreedyRegistration(
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
            return greedy.evaluate(images[0], image)[0, 0].detach().numpy().T

        return Answer(read_transform(field), seconds, pulled)


@dataclass(frozen=True)
class ConvexAdamPackage(Peer):
    """The tool `convex_adam_pt` of ConvexAdam's authors (Siebert et al. 2021), with its defaults, in float32."""

    def __call__(self, fixed: Path, moving: Path, folder: Path) -> Answer:
        """Register two images on one grid.

        Raises:
            InputError: their package is not installed.
        """
        needs = "ConvexAdam's package: pip install --no-deps --target SITE convexAdam, and PYTHONPATH=SITE"
        package = _installed("convexAdam.convex_adam_MIND", needs)
        images = [read_image(path) for path in (fixed, moving)]
        start = time.perf_counter()
        field = package.convex_adam_pt(*(image.data[0, 0] for image in images), device=CPU, dtype=torch.float32)
        seconds = time.perf_counter() - start
        displacement = torch.from_numpy(field).float().movedim(-1, 0)[None]
        return Answer(Displacement(displacement, images[0].grid), seconds)


@dataclass(frozen=True)
class RigidSimpleITK(Peer):
    """A rigid registration by SimpleITK that descends mutual information (Mattes et al. 2003) from the headers.

    Attributes:
        levels: of the pyramid, each half as fine as the next.
        iterations: at most, of each.
        sampled: share of the voxels that it looks at; 1 is all, and nothing is random.
    """

    levels: int = 4
    iterations: int = 200
    sampled: float = 0.2

    def __call__(self, fixed: Path, moving: Path, folder: Path) -> Answer:
        """Register two images of one channel."""
        images = [sitk.ReadImage(str(path), sitk.sitkFloat32) for path in (fixed, moving)]
        register = sitk.ImageRegistrationMethod()
        register.SetMetricAsMattesMutualInformation(50)
        register.SetMetricSamplingStrategy(register.RANDOM)
        register.SetMetricSamplingPercentage(self.sampled, 1)
        register.SetInterpolator(sitk.sitkLinear)
        register.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-4, self.iterations)
        register.SetOptimizerScalesFromPhysicalShift()
        factors = [2**level for level in reversed(range(self.levels))]
        register.SetShrinkFactorsPerLevel(factors)
        register.SetSmoothingSigmasPerLevel([factor / 2 if factor > 1 else 0 for factor in factors])
        register.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
        kind = sitk.Euler3DTransform() if images[0].GetDimension() == 3 else sitk.Euler2DTransform()
        middle = [(n - 1) / 2 for n in images[0].GetSize()]
        kind.SetCenter(images[0].TransformContinuousIndexToPhysicalPoint(middle))
        register.SetInitialTransform(kind)
        start = time.perf_counter()
        found = register.Execute(*images)
        seconds = time.perf_counter() - start
        sitk.WriteTransform(found, str(folder / "rigid.tfm"))
        return Answer(read_transform(folder / "rigid.tfm"), seconds)


def _installed(module: str, needs: str) -> Any:
    """Return a module, if it is installed.

    Raises:
        InputError: it `needs` what is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(needs) from error
