"""Transforms of any tool, measured from files."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from typer.testing import CliRunner

from pullback.cli import app
from pullback.errors import InputError
from pullback.files import write
from pullback.space import Grid, Image, Labels
from pullback.workflows.evaluation import EvaluatedFiles, evaluate_files, read_evaluated

SHIFT = (3.0, -2.0, 1.0)  # mm, RAS


@pytest.fixture
def scene(tmp_path: Path) -> dict[str, str]:
    """A ball, the same ball shifted, labels, landmarks, and the shift as ITK writes it, both ways."""
    grid = Grid((24, 26, 28), torch.eye(4, dtype=torch.float64))
    where = grid.voxels(torch.zeros(1, dtype=torch.float64))
    for side, shift in (("fixed", (0.0, 0.0, 0.0)), ("moving", SHIFT)):
        centre = torch.tensor([12.0, 13.0, 12.0]) + torch.tensor(shift)
        off = (where - centre.view(3, 1, 1, 1)).norm(dim=0)
        write(Image((8 - off).clamp(min=0).float()[None, None], grid), tmp_path / f"{side}.nii.gz")
        write(Labels((off < 5).int()[None, None], grid), tmp_path / f"{side}_labels.nii.gz")
        rows = [(12, 13, 12), (14, 10, 12), (9, 13, 15), (12, 16, 10)]
        lines = ["name,R,A,S"] + [
            f"p{n},{','.join(str(x + s) for x, s in zip(p, shift, strict=True))}" for n, p in enumerate(rows)
        ]
        (tmp_path / f"{side}.csv").write_text("\n".join(lines) + "\n")
    forward = sitk.TranslationTransform(3, (-SHIFT[0], -SHIFT[1], SHIFT[2]))
    sitk.WriteTransform(forward, str(tmp_path / "there.tfm"))
    sitk.WriteTransform(forward.GetInverse(), str(tmp_path / "back.tfm"))
    return {name: str(tmp_path / name) for name in ("fixed.nii.gz", "moving.nii.gz", "there.tfm", "back.tfm")} | {
        f"{side}_{what}": str(tmp_path / f"{side}{ending}")
        for side in ("fixed", "moving")
        for what, ending in (("labels", "_labels.nii.gz"), ("points", ".csv"))
    }


def all_of(scene: dict[str, str]) -> EvaluatedFiles:
    known = {name: scene[name] for name in ("fixed_labels", "moving_labels", "fixed_points", "moving_points")}
    return EvaluatedFiles(
        scene["fixed.nii.gz"], scene["moving.nii.gz"], (scene["there.tfm"],), (scene["back.tfm"],), **known
    )


def test_a_shift_of_itk_answers_for_all_of_it(scene: dict[str, str]) -> None:
    rows = evaluate_files(all_of(scene))
    far = float(np.linalg.norm(SHIFT))
    assert rows["unmoved"]["tre mm"] == pytest.approx(far)
    assert rows["transform"]["tre mm"] == pytest.approx(0, abs=1e-9)
    assert rows["transform"]["dice"] == 1 > rows["unmoved"]["dice"]
    assert rows["transform"]["hd95 mm"] == 0 < rows["unmoved"]["hd95 mm"]
    assert rows["transform"]["inverse mm (greatest)"] == pytest.approx(0, abs=1e-9)
    assert "inverse mm" not in rows["unmoved"]


def test_an_inverse_that_is_none_is_told_in_mm(scene: dict[str, str]) -> None:
    wrong = EvaluatedFiles(scene["fixed.nii.gz"], scene["moving.nii.gz"], (scene["there.tfm"],), (scene["there.tfm"],))
    # there twice is twice as far
    assert evaluate_files(wrong)["transform"]["inverse mm"] == pytest.approx(2 * np.linalg.norm(SHIFT))


def test_a_point_without_a_partner_is_left_out_and_order_does_not_matter(scene: dict[str, str]) -> None:
    path = Path(scene["moving_points"])
    head, _, *others = path.read_text().split()
    path.write_text("\n".join([head, *reversed(others)]) + "\n")
    assert evaluate_files(all_of(scene))["transform"]["tre mm"] == pytest.approx(0, abs=1e-9)


def test_a_table_of_many_is_measured_pair_by_pair(scene: dict[str, str], tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    names = "fixed.nii.gz,moving.nii.gz,{},fixed_labels.nii.gz,moving_labels.nii.gz"
    rows = [names.format(way) for way in ("there.tfm", "there.tfm;back.tfm")]
    table.write_text("\n".join(["fixed,moving,transform,fixed_labels,moving_labels", *rows]) + "\n")
    done = CliRunner().invoke(app, ["evaluate", "--pairs", str(table), "-o", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    dice = {r["register"]: r for r in answer["table"] if r["measure"] == "dice"}
    before = evaluate_files(all_of(scene))["unmoved"]["dice"]
    assert dice["transform"]["cases"] == 2
    assert dice["transform"]["mean"] == pytest.approx((1 + before) / 2)
    assert (tmp_path / "out" / "pairs.csv").read_text().count("transform,") == 2


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("transform", "", "no transform"),
        ("moving", "absent.nii.gz", "missing"),
        ("fixed_lables", "x", "did you mean"),
        ("fixed_labels", "fixed_labels.nii.gz", "of both"),
    ],
)
def test_a_table_is_refused_before_any_work(
    scene: dict[str, str], tmp_path: Path, column: str, cell: str, said: str
) -> None:
    row = {"fixed": "fixed.nii.gz", "moving": "moving.nii.gz", "transform": "there.tfm"} | {column: cell}
    table = tmp_path / "pairs.csv"
    table.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    with pytest.raises(InputError, match=said):
        read_evaluated(table)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "-f, -m and -t"),
        (["-f", "fixed.nii.gz"], "-f, -m and -t"),
        (["run", "-f", "fixed.nii.gz"], "trained runs"),
        (["--pairs", "a.csv", "-t", "x"], "column of --pairs"),
        (["--data", "d", "-f", "a", "-m", "b", "-t", "c"], "there are none"),
    ],
)
def test_options_of_runs_and_of_files_do_not_mix(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["evaluate", *arguments])
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)


def test_dimensions_that_differ_name_both_files(scene: dict[str, str], tmp_path: Path) -> None:
    sitk.WriteTransform(sitk.TranslationTransform(2, (1.0, 1.0)), str(tmp_path / "flat.tfm"))
    with pytest.raises(InputError, match=r"flat\.tfm.*2-D.*3-D"):
        evaluate_files(EvaluatedFiles(scene["fixed.nii.gz"], scene["moving.nii.gz"], (str(tmp_path / "flat.tfm"),)))
