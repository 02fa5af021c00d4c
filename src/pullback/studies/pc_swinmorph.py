"""The study of PC-SwinMorph (Liu et al. 2022), part by part.

    pullback study pc-swinmorph tiles/slices rivals/slices people/slices --data slices=oasis_trt20_2d/
    pullback study pc-swinmorph table1/brains --data brains=brains/2mm --seed 0
    pullback study pc-swinmorph cost --seed 0

Arms of an experiment have the same data, updates and seeds, and but for VoxelMorph and TransMorph the same encoder and
decoder. `whole` has neither patches nor attention: what it has more than VoxelMorph is the wider network's, and both
ways in one pass. `tiles, blended` has the weights of `tiles`, asked for patches that overlap by half, with Gaussian
weights.

J is the mean jump of the displacement between neighbouring voxels across the seams of the patches, over that between
all others: 1 where no seam is seen. All arms are looked at along the same planes, whether or not they have patches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar

import torch

from pullback.alignment import BACK, Alignment, Pair
from pullback.data import PairFolder, Test, Train, Validation
from pullback.methods.pair.patch_contrast import PatchContrastive
from pullback.methods.pair.pc_swinmorph import PCSwinMorph
from pullback.metrics import Dice, Folding, Metric, SDLogJ, foreground, of_one
from pullback.numerics.tiles import bell
from pullback.recipes import find
from pullback.recipes.pc_swinmorph import NAME
from pullback.recipes.unsupervised import ENERGY
from pullback.solvers import Tiled
from pullback.space import Image, Labels, Velocity
from pullback.studies._both_ways import Cycle, Halfway, OneVelocity, TwoHalves
from pullback.studies._images import DICE, FOLDING, SDLOGJ, SECONDS, trained
from pullback.studies.tm_tvf import cost
from pullback.study.arms import FunctionArm, TrainedArm
from pullback.study.figures import boxes, curves, fields
from pullback.study.recipe import Recipe
from pullback.study.table import Column, Experiment, Figure, Study, Table

LabelGroups = tuple[tuple[str, tuple[int, ...]], ...]

LPBA40: LabelGroups = (
    ("frontal", tuple(range(21, 35))),
    ("parietal", tuple(range(41, 51))),
    ("occipital", tuple(range(61, 69))),
    ("temporal", tuple(range(81, 93))),
    ("cingulate", (101, 102, 121, 122)),
    ("putamen", (163, 164)),
    ("hippocampus", (165, 166)),
)
"""The seven groups of the paper's figure, by its authors' earlier code; the caudate is in none."""
FREESURFER: LabelGroups = (
    ("cortex", (3, 42)),
    ("white matter", (2, 41)),
    ("deep grey", (10, 11, 12, 13, 26, 28, 49, 50, 51, 52, 58, 60)),
    ("ventricles", (4, 5, 14, 15, 43, 44)),
    ("cerebellum", (7, 8, 46, 47)),
    ("brain stem", (16,)),
    ("hippocampus", (17, 18, 53, 54)),
)
"""Seven groups of the structures of `brains`; the amygdala is with the hippocampus."""
FITTING = (7, 5)  # windows by which patches of slices need few zeros: 112×160 of 108×146 voxels
TINY = 1e-6  # voxels: a field that is the same everywhere else


@dataclass(frozen=True)
class SeamJump:
    """The mean jump of the displacement across the seams of a network's patches, over that between other neighbours.

    Lengths are in voxels of the fixed image. There is no number where nothing moves.

    Attributes:
        network: makes the network whose patches are meant.
    """

    network: partial[PCSwinMorph]
    name: ClassVar[str] = "seam jump"
    higher_is_better: ClassVar[bool] = False

    @cached_property
    def _made(self) -> PCSwinMorph:
        return self.network()

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        field, across, within = alignment.displacement.detach(), [], []
        for axis, seams in enumerate(self._made.seams(field.shape[2:])):
            jumps = field.diff(dim=2 + axis).norm(dim=1).movedim(1 + axis, 0)  # (n − 1, …)
            seam = torch.zeros(len(jumps), dtype=torch.bool)
            seam[[first - 1 for first in seams]] = True
            across.append(jumps[seam].flatten())
            within.append(jumps[~seam].flatten())
        jump, other = (float(torch.cat(each).mean()) for each in (across, within))
        return {self.name: jump / max(other, TINY)} if max(jump, other) > 0 else {}


@dataclass(frozen=True)
class MotionInPatches:
    """The length of motion in a network's patches: the 95th percentile of |u| over the foreground, in edges, in %.

    Attributes:
        network: makes the network whose patches are meant.
    """

    network: partial[PCSwinMorph]
    name: ClassVar[str] = "motion %"
    higher_is_better: ClassVar[bool] = False

    @cached_property
    def _made(self) -> PCSwinMorph:
        return self.network()

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        field = alignment.displacement.detach()
        size = field.new_tensor(self._made.patches(field.shape[2:]).size).view(-1, *[1] * (field.ndim - 2))
        far = (field / size).abs().amax(1)[foreground(alignment)[:, 0].to(field.device)].sort().values
        return {self.name: 100 * float(far[int(0.95 * (len(far) - 1))])}


@dataclass(frozen=True)
class BothDice:
    """Dice of the moving labels carried onto the fixed image, and of the fixed labels carried onto the moving one.

    The second, the paper's segmentation, is by the transform `back` of an answer, or by the inverse where there is
    none.

    Attributes:
        groups: labels that are fused before they are carried, by names; without any each is by itself.
    """

    groups: LabelGroups = ()
    name: ClassVar[str] = "dice"
    higher_is_better: ClassVar[bool] = True

    @of_one
    def __call__(self, alignment: Alignment) -> dict[str, float]:
        pair = self._fused(alignment.pair)
        turned = Pair(pair.moving, pair.fixed, pair.moving_labels, pair.fixed_labels)
        back = alignment.transforms.get(BACK, alignment.inverse)
        there, here = (self._named(Dice()(one)) for one in (replace(alignment, pair=pair), Alignment(turned, back)))
        return there | {f"back {name}": value for name, value in here.items()}

    def _fused(self, pair: Pair) -> Pair:
        if not self.groups or pair.fixed_labels is None or pair.moving_labels is None:
            return pair
        fixed, moving = (self._in_groups(labels) for labels in (pair.fixed_labels, pair.moving_labels))
        return replace(pair, fixed_labels=fixed, moving_labels=moving)

    def _in_groups(self, labels: Labels) -> Labels:
        data = torch.zeros_like(labels.data)
        for number, (_, members) in enumerate(self.groups, 1):
            data[torch.isin(labels.data, labels.data.new_tensor(members))] = number
        return replace(labels, data=data)

    def _named(self, numbers: Mapping[str, float]) -> dict[str, float]:
        names = {f"dice/{number}": f"dice/{name}" for number, (name, _) in enumerate(self.groups, 1)}
        return {names.get(key, key): value for key, value in numbers.items()}


@dataclass(frozen=True, eq=False)
class Blended:
    """A network of patches, asked for patches that overlap by half, whose fields are blended by Gaussian weights.

    Attributes:
        network: of one patch.
        patches: of the network whose weights it has.
    """

    network: PCSwinMorph
    patches: PCSwinMorph

    def __call__(self, fixed: Image, moving: Image) -> Alignment:
        size = self.patches.patches(fixed.grid.shape).size
        return Tiled(self.network, size, window=bell)(fixed, moving)


def blended(network: PCSwinMorph) -> Blended:
    """Return a network that was trained without attention, blended."""
    made = network.made
    alone: PCSwinMorph = made.func(*made.args, **{**made.keywords, "tiles": (1,) * len(network.tiles)})
    alone.load_state_dict(network.state_dict())
    return Blended(alone.to(next(network.parameters()).device).eval(), network)


@dataclass(frozen=True)
class AtOnce:
    """A folder of which several pairs are learned from at once, so that their people differ.

    Attributes:
        root: the folder, or "" until one is given.
        data: the folder's data.
        count: pairs of one example.
    """

    root: str = ""
    data: PairFolder = PairFolder()
    count: int = 8

    @property
    def centred(self) -> bool:
        return self.data.centred

    @property
    def train(self) -> Train:
        return replace(self._placed.train, at_once=self.count)

    @property
    def validation(self) -> Validation:
        return self._placed.validation

    @property
    def test(self) -> Test:
        return self._placed.test

    @property
    def _placed(self) -> PairFolder:
        return replace(self.data, root=self.root)


# ---- experiments


def _ours(data: str) -> Recipe:
    recipe = find(NAME, on=data)
    return replace(recipe, network=partial(recipe.network, window=FITTING)) if data == "slices" else recipe


def _differing(recipe: Recipe, weight: float = 0.0, **differs: Any) -> Recipe:
    supervision = replace(recipe.supervision, weight=weight)  # type: ignore[type-var]
    return replace(recipe, network=partial(recipe.network, **differs), supervision=supervision)


def _whole(data: str) -> Recipe:
    ours = _ours(data)
    return _differing(ours, tiles=(1,) * ours.network.keywords["ndim"], stitch=False)


def _measured(arms: Mapping[str, TrainedArm], data: str, groups: LabelGroups = ()) -> Experiment:
    """Return an experiment of arms, measured along the seams of the paper's network."""
    network = _ours(data).network
    metrics: tuple[Metric, ...] = (
        BothDice(groups),
        Folding(),
        SDLogJ(),
        SeamJump(network),
        MotionInPatches(network),
    )
    return replace(trained(arms), metrics=metrics)


def _arms(data: str) -> dict[str, TrainedArm]:
    ours = _ours(data)
    plain = [replace(find(name, on=data), data=ours.data) for name in ("voxelmorph", "transmorph")]
    numbers = replace(ours.training, lr=min(ours.training.lr, 3e-4))
    voxelmorph, transmorph = (
        replace(recipe, training=training) for recipe, training in zip(plain, (ours.training, numbers), strict=True)
    )
    tiles = _differing(ours, stitch=False)
    arms = {
        "VoxelMorph": TrainedArm(voxelmorph),
        "whole": TrainedArm(_whole(data)),
        "tiles": TrainedArm(tiles),
        "tiles, blended": TrainedArm(tiles, uses=blended),
        "tiles, border goes on": TrainedArm(_differing(ours, stitch=False, border="replicate")),
        "tiles + Swin": TrainedArm(_differing(ours)),
        "PC-SwinMorph": TrainedArm(ours),
        "TransMorph": TrainedArm(transmorph),
    }
    later = () if data == "slices" else ("tiles, border goes on",)
    return {name: arm for name, arm in arms.items() if name not in later}


def _rivals(data: str) -> dict[str, TrainedArm]:
    """Return the paper's rivals, losses on the whole network."""
    whole = _whole(data)
    velocities: partial[Any] = partial(whole.network, transform=Velocity)
    return {
        "whole": TrainedArm(whole),
        "DeepTag": TrainedArm(replace(whole, network=partial(OneVelocity, network=velocities))),
        "SYMNet": TrainedArm(replace(whole, network=partial(TwoHalves, network=velocities), supervision=Halfway())),
        "CycleMorph": TrainedArm(replace(whole, supervision=Cycle(ENERGY))),
    }


def _people(data: str) -> Experiment:
    """Return the experiment of contrast between people, as in the authors' earlier work, without patches."""
    whole = _whole(data)
    assert isinstance(whole.data, PairFolder)
    several = replace(whole, data=AtOnce(data=whole.data), training=replace(whole.training, updates=500))
    told = replace(several, supervision=PatchContrastive(ENERGY))
    return _measured({"whole": TrainedArm(several), "whole + contrast": TrainedArm(told)}, data)


def _costs() -> Experiment:
    arms = {name: arm.recipe for name, arm in _arms("brains").items() if arm.uses is None}
    return Experiment({name: FunctionArm(partial(cost, recipe=recipe)) for name, recipe in arms.items()})


def _columns(groups: LabelGroups = ()) -> Sequence[Column]:
    return (
        DICE,
        *(Column(name, better="more", key=f"dice/{name}") for name, _ in groups),
        Column("Dice back", better="more", against="difference", key="back dice"),
        Column("J", better="less", digits=2, key=SeamJump.name),
        Column("motion", "%", digits=0, key=MotionInPatches.name),
        FOLDING,
        SDLOGJ,
        SECONDS,
        Column("peak", "MB", better="less", digits=0, key="peak MB"),
    )


FIGURES = {
    "training": Figure(partial(curves, columns=(DICE, FOLDING))),
    "labels": Figure(partial(boxes, column=DICE)),
    "fields": Figure(fields),
}

study = Study(
    about="PC-SwinMorph: patch representation for unsupervised registration and segmentation (Liu et al. 2022)",
    tables={
        "table1": Table(
            "Seven groups of labels, both ways: patches, their stitching and contrast beside one network of the whole",
            "Figure 2, LPBA40: 5.9 points of Dice over VoxelMorph, 3.9 to 4.3 over DeepTag, SYMNet and CycleMorph, in "
            "all seven groups, of registration and of segmentation alike. All are said to share one backbone. Our "
            "expectation: patches lose what lies beyond them, so that the whole is as good or better.",
            {"brains": _measured(_arms("brains"), "brains", FREESURFER)},
            _columns(FREESURFER),
            FIGURES,
        ),
        "lpba40": Table(
            "The same on the paper's data",
            "Figure 2, as in table1.",
            {"lpba40": _measured(_arms("lpba40"), "lpba40", LPBA40)},
            _columns(LPBA40),
            FIGURES,
        ),
        "tiles": Table(
            "Whole, patches, blending, attention and contrast, part by part, with the jump across seams",
            "No ablation is shown. Our expectation: J of patches above 3, below 1.3 with attention, and no more than "
            "half a point of Dice by contrast.",
            {"slices": _measured(_arms("slices"), "slices")},
            _columns(),
            FIGURES,
        ),
        "rivals": Table(
            "The paper's rivals as losses of the whole network",
            "Figure 2: 3.9 to 4.3 points of Dice less than PC-SwinMorph.",
            {"slices": _measured(_rivals("slices"), "slices")},
            _columns(),
            FIGURES,
        ),
        "people": Table(
            "Contrast between people, eight pairs at once, without patches",
            "Of the authors' earlier work (Liu et al. 2020); a batch of one pair has nobody else.",
            {"slices": _people("slices")},
            _columns(),
            FIGURES,
        ),
        "cost": Table(
            "What it costs on images of 80×96×112, with half the channels",
            "This is not shown. All patches are one batch, so that training needs as much memory as the whole.",
            {"random": _costs()},
            (
                Column("parameters", "M", digits=3),
                Column("forward", "s", better="less", against="ratio"),
                Column("update", "s", better="less", against="ratio"),
                Column("forward", "MB", better="less", digits=0),
                Column("update", "MB", better="less", digits=0),
            ),
        ),
    },
)
