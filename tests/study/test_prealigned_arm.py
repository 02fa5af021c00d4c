"""Pre-alignment as an arm of any study; and contrasts of several numbers."""

from dataclasses import replace
from functools import partial
from io import StringIO

import torch
from rich.console import Console

from pullback.alignment import Alignment, Pair
from pullback.data import GrowingBrains, PairFolder, Prealigned, Tori
from pullback.methods.pair.classical import Classical
from pullback.metrics import Dice
from pullback.recipes.residual_unet import AFFINE
from pullback.records.csv_records import read_csv
from pullback.space import Affine, Image
from pullback.study.arms import FunctionArm, RegisterArm, Trial, about_data, is_stored, placed
from pullback.study.contrasts import Contrasts
from pullback.study.evaluate import unmoved
from pullback.study.page import write_study
from pullback.study.plan import chosen, run_study
from pullback.study.prealigned_arm import PrealignedArm
from pullback.study.statistics import paired
from pullback.study.table import Column, Experiment, Study, Table
from pullback.training import PairEvaluation

NOTHING = Classical(initialise=None, linear=(), deformable=None)


def turned(fixed: Image, moving: Image) -> Alignment:
    """Return a turn by 0.15 rad, about, about the middle."""
    turn = torch.tensor([[1.0, -0.15], [0.15, 1.0]], dtype=torch.float64)
    return Alignment(Pair(fixed, moving), Affine.about(turn, fixed.grid.centre))


RINGS = Tori(32, train_subjects=2, validation_subjects=2, test_subjects=8)


def test_a_pre_alignment_measured_alone_is_its_register(tmp_path):
    """Dice of what was aligned before and then not moved is that of the register, exactly; it is another arm's unit."""
    trial = Trial(tmp_path, "rings", RINGS, partial(PairEvaluation, metrics=(Dice(),)))
    quiet = Console(file=StringIO())
    for register in (NOTHING, turned):
        one = RegisterArm(register).unit(trial)
        other = PrealignedArm(RegisterArm(unmoved), register).unit(trial)
        assert one.path != other.path
        rows = [[row["dice"] for row in unit.arm.rows(unit, quiet)] for unit in (one, other)]
        assert rows[0] == rows[1]
    assert [row["dice"] for row in one.arm.rows(one, quiet)] != [
        row["dice"] for row in RegisterArm(unmoved).rows(RegisterArm(unmoved).unit(trial), quiet)
    ]


def test_arms_of_one_study_share_the_transforms_wherever_it_lies(tmp_path):
    """The folder of the transforms is no part of what the rows depend on, and the register is."""
    arm = PrealignedArm(RegisterArm(unmoved), NOTHING)
    names = {arm.unit(Trial(tmp_path / name, "rings", RINGS)).folder.name for name in "ab"}
    assert len(names) == 1
    assert {replace(arm, register=AFFINE).unit(Trial(tmp_path, "rings", RINGS)).folder.name} != names
    data = Prealigned(PairFolder(), NOTHING)
    assert is_stored(data)
    assert is_stored(Prealigned(GrowingBrains(PairFolder()), NOTHING))
    assert not is_stored(Prealigned(RINGS, NOTHING))
    assert placed(data, "mine", {"mine": tmp_path}).root == str(tmp_path)
    assert about_data(Prealigned(RINGS, NOTHING, "here")) == about_data(Prealigned(RINGS, NOTHING, "there"))


def several(data, seed, better):
    for case in range(6):
        yield {"case": str(case), "x": case + 0.1 * case * better, "y": case - 0.1 * case * better}


def test_contrasts_may_be_of_several_numbers(tmp_path):
    """Each is a family of its own."""
    made = {name: FunctionArm(partial(several, better=better)) for name, better in (("one", 0.0), ("other", 1.0))}
    asked = Contrasts("more of it", paired, [("other", "one")], "greater")
    table = Table("", "", {"made": Experiment(made)}, (Column("x"), Column("y")), tests=(asked,), tested=("x", "y"))
    known, quiet = Study("", {"table": table}), Console(file=StringIO())
    results = run_study(chosen(known, (), {}), {}, tmp_path, (0,), {}, quiet)
    write_study(known, results, tmp_path, quiet)
    (file,) = tmp_path.rglob("*tests*.csv")
    rows = {row["measure"]: float(row["p"]) for row in read_csv(file)}
    assert rows["x"] < 0.05 < 0.9 < rows["y"]
