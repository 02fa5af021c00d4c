"""Weighted metamorphosis (François et al. 2022): the paper's toy, made tumours, and two patients of BraTS 2021.

    pullback study metamorphosis toy --data toy=DIR
    pullback study metamorphosis tumours --data tumours=DIR --set data.count=5
    pullback study metamorphosis brats --data brats=DIR

`toy` and `brats` are pictures of the authors (`examples/im2Dbank` of Demeter_metamorphosis). In `toy` four grey ovals
on a disc are pushed aside by a triangle that has grown; the paper's images have 300² pixels, here by default 100², of
3 mm as its kernel is counted. In `tumours` slices of OASIS-TRT-20, with labels of Mindboggle, get a tumour that is
painted in and pushes (`data.phantoms.lesions`); another person's slice is aligned to each, affinely beforehand, with
the tumour left out. They stand in for the paper's 50 slices of patients, whose ventricles nobody else has outlined.

Squared differences are ½ Σ over voxels, intensities from 0 to 1: of the final image, which is what metamorphosis makes
small; of the image that was only deformed; and of that outside the tumour, for within it a deformation can only lie.
`Dice` is of all labels outside the tumour, carried by the deformation alone. `in ventricles` is the share of what was
added that lies in the ventricles, where nothing is new.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from pullback.alignment import Alignment, Pair, seen
from pullback.methods.pair.classical import BALANCED, Classical
from pullback.methods.pair.growing_mask import Growth
from pullback.methods.pair.image_shooting import Shot
from pullback.methods.pair.metamorphosis import Metamorphosis
from pullback.numerics.kernel import Gaussian
from pullback.report.animation import write_animation
from pullback.report.figures import COLOURS, blank
from pullback.report.pictures import grey
from pullback.space import Image
from pullback.studies._tumours import Patients, Toy, Tumours
from pullback.study.arms import Arm, RegisterArm
from pullback.study.evaluate import unmoved
from pullback.study.result import Result
from pullback.study.table import Column, Experiment, Figure, Study, Table
from pullback.training import ExampleEvaluation

VENTRICLES = (4, 43)  # left and right lateral, as FreeSurfer counts


# ---- arms and what is measured


@dataclass(frozen=True)
class Unmasked:
    """A register that is not told of the tumour."""

    register: Any

    def __call__(self, fixed: Image, moving: Image) -> Alignment:
        return self.register(replace(fixed, mask=None), moving)


def measured(register: Any, pair: Pair) -> dict[str, float]:
    """Measure a register on one pair; see the head of this module."""
    start = time.perf_counter()
    answer = register(pair.fixed, pair.moving)
    spent = time.perf_counter() - start
    alignment = seen(pair, answer)
    outside = torch.ones_like(pair.fixed.data, dtype=torch.bool) if pair.fixed.mask is None else pair.fixed.mask
    final = alignment.maps.get("final", alignment.moved)
    squares = {"final": final.data, "deformed": alignment.moved.data}
    left = {name: (data - pair.fixed.data).square() / 2 for name, data in squares.items()}
    row = {name: float(each.sum()) for name, each in left.items()}
    row["outside"] = float(left["deformed"][outside].sum())
    row |= _carried(alignment, outside)
    row["least det"] = float(alignment.jacobian.min())
    return row | {"seconds": spent}


def _carried(alignment: Alignment, outside: Tensor) -> dict[str, float]:
    fixed, moved = alignment.pair.fixed_labels, alignment.moved_labels
    if fixed is None or moved is None:
        return {}
    one, two = fixed.data * outside, moved.data * outside
    both = sorted(set(one.unique().tolist()) & set(two.unique().tolist()) - {0})
    row = {"dice": float(np.mean([_dice(one == n, two == n) for n in both]))}
    sides = [sum((labels == n for n in VENTRICLES), torch.zeros_like(outside)) > 0 for labels in (one, two)]
    if sides[0].any():
        row["ventricles"] = _dice(*sides)
        added = alignment.maps["appearance"].data.abs() if "appearance" in alignment.maps else None
        if added is not None and added.any():
            row["in ventricles %"] = 100 * float(added[sides[0]].sum() / added.sum())
    return row


def _dice(one: Tensor, two: Tensor) -> float:
    return float(2 * (one & two).sum() / (one.sum() + two.sum()).clamp(min=1))


def _arms(
    base: Metamorphosis, metamorphosis: tuple[float, ...], weighted: tuple[float, ...], growth: Growth
) -> dict[str, Arm]:
    """Return the arms: LDDMM, and metamorphosis of each addition, with no mask, a constant one and a growing one."""
    still = replace(base, addition=0.0)
    arms = {"LDDMM": still, "LDDMM, masked": replace(still, masked=True)}
    arms |= {f"M, ν {nu:g}": Unmasked(replace(base, addition=nu)) for nu in metamorphosis}  # type: ignore[misc]
    for name, growing in (("constant", None), ("growing", growth)):
        arms |= {f"WM {name}, ν {nu:g}": replace(base, addition=nu, growing=growing) for nu in weighted}
    return {name: RegisterArm(register) for name, register in arms.items()}


DEFORMABLE: Classical = replace(BALANCED, initialise=None, linear=())
PLAIN: dict[str, Arm] = {
    "before": RegisterArm(unmoved),
    "register": RegisterArm(Unmasked(DEFORMABLE)),
    "register, tumour excluded": RegisterArm(DEFORMABLE),
}


# ---- figures


def path(result: Result, rows: Any, arms: Sequence[str], at: int = 4) -> Drawing:
    """Draw the first pair, for each of some arms that shoot: images on the way, what was added, and the deformed grid.

    Beside the figures lies an animation of each way, `figures/<experiment>-<arm>.png`.
    """
    pair, shots = next(iter(result.data.test)), {}
    for arm in arms:
        unit = result.units[arm][0]
        register = unit.arm.register if isinstance(unit.arm, RegisterArm) else None
        fixed = replace(pair.fixed, mask=None) if isinstance(register, Unmasked) else pair.fixed
        register = register.register if isinstance(register, Unmasked) else register
        assert isinstance(register, Metamorphosis), arm
        shots[arm] = register.shoot(fixed, pair.moving)[0]
    columns = at + 2
    figure, axes = blank(columns, 1.5 * columns, 1.6 * len(shots), len(shots))
    for axis in axes:
        axis.set_axis_off()
    for n, (arm, shot) in enumerate(shots.items()):
        row = axes[n * columns : (n + 1) * columns]
        row[0].set_title(arm, fontsize=8, loc="left")
        way = [(image.data + added)[0, 0].cpu().numpy().T for image, added in shot.path()]
        _draw(row, way, shot)
        name = f"{result.name}-{arm}".replace(" ", "-").replace(",", "")
        folder = result.units[arm][0].trial.out / "figures"
        write_animation([grey(frame[::-1]) for frame in way], folder / f"{name}.png", 150)
    return figure


def _draw(row: Sequence[Axes], way: Sequence[np.ndarray], shot: Shot) -> None:
    """Draw images of the way with the mask's outline, then what was added, then the lines of the grid, deformed."""
    *axes, residual, grid = row
    masks = shot.weight[:, 0].cpu().numpy()
    for axis, step in zip(axes, np.linspace(0, len(way) - 1, len(axes)).round().astype(int), strict=True):
        axis.imshow(way[step], cmap="gray", vmin=0, vmax=1, origin="lower")
        mask = masks[min(max(step - 1, 0), len(masks) - 1)]
        if mask.min() < 0.5 < mask.max():
            axis.contour(mask.T, [0.5], colors=COLOURS[4], linewidths=0.8)
    residual.imshow(shot.appearance[0, 0].cpu().numpy().T, cmap="RdBu_r", vmin=-0.6, vmax=0.6, origin="lower")
    where = shot.grid.voxels(shot.momentum) + shot.flow.displacement(shot.grid)[0]
    for values, count in zip(where.cpu().numpy(), shot.grid.shape, strict=True):
        grid.contour(values.T, np.arange(0, count, max(count // 16, 1)), colors=COLOURS[0], linewidths=0.6)
    grid.set_aspect("equal")


# ---- tables


def _evaluation() -> partial[Any]:
    return partial(ExampleEvaluation, measure=measured, chooses="deformed", higher_is_better=False, aligns="pair")


COLUMNS = (
    Column("final", "½Σ", better="less", key="final", digits=1),
    Column("deformed", "½Σ", better="less", key="deformed", digits=1),
    Column("outside", "½Σ", better="less", key="outside", digits=1, against="difference"),
)
LABELS = (
    Column("Dice", better="more", against="difference"),
    Column("ventricles", better="more", against="difference"),
    Column("in ventricles", "%", better="less"),
)
REST = (Column("least det", better="more"), Column("time", "s", better="less", key="seconds"))
CONSTANT = "WM constant, ν 0.05"
OVAL = Metamorphosis(Gaussian(9.0), steps=20, scaled=False, growing=None)
BRAIN = Metamorphosis(Gaussian(6.0), steps=10, scaled=False, growing=None)
BRAINS = ("LDDMM", "M, ν 0.033", CONSTANT, "WM growing, ν 0.05")

study = Study(
    about="Weighted metamorphosis for registration of images with different topologies (François et al. 2022)",
    tables={
        "toy": Table(
            "Ovals that a growing triangle pushes aside; Dice is of the ovals, by deformation alone",
            "Figure 1, without numbers: metamorphosis comes nearest and moves least; with a mask the ovals move, and "
            "best with a growing one. With a mask it depends less on μ and ρ.",
            {
                "toy": Experiment(
                    {
                        "before": PLAIN["before"],
                        **_arms(OVAL, (0.0007, 0.004, 0.02), (0.0003, 0.005, 0.03), Growth(0.1, Gaussian(7.0))),
                    },
                    "WM constant, ν 0.005",
                    Toy(),
                    (),
                    _evaluation(),
                )
            },
            (*COLUMNS, LABELS[0], *REST),
            {
                "path": Figure(
                    partial(path, arms=("LDDMM", "M, ν 0.0007", "WM constant, ν 0.005", "WM growing, ν 0.005"))
                )
            },
        ),
        "tumours": Table(
            "Another head's slice to one with a made tumour that pushes; Dice outside the tumour",
            "Table 1, 50 slices of BraTS 2021 at 240² with SRI24 as the moving image, sums without the ½ (the code has "
            "it): final 223 LDDMM, 36 M, 65 WM, 49 masked outside the tumour; deformed 112 M, 102 WM; Dice of the "
            "ventricles 68.6 LDDMM, 74.1 M, 77.2 WM, 45.0 masked.",
            {
                "tumours": Experiment(
                    {**PLAIN, **_arms(BRAIN, (0.001, 0.033), (0.001, 0.05), Growth())},
                    CONSTANT,
                    Tumours(),
                    (),
                    _evaluation(),
                )
            },
            (*COLUMNS, *LABELS, *REST),
            {"path": Figure(partial(path, arms=BRAINS))},
        ),
        "brats": Table(
            "The template SRI24 to two patients of BraTS 2021",
            "Figure 2, without numbers.",
            {
                "brats": Experiment(
                    {**PLAIN, **_arms(BRAIN, (0.001, 0.033), (0.001, 0.05), Growth())},
                    CONSTANT,
                    Patients(),
                    (),
                    _evaluation(),
                )
            },
            (*COLUMNS, *REST),
            {"path": Figure(partial(path, arms=BRAINS))},
        ),
    },
)
