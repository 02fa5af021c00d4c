"""DIR-Lab 4-D CT: axes, sizes and landmarks as packs have them, both halves of a breath, and what is refused."""

import numpy as np
import pytest
import torch

from pullback.data import dirlab
from pullback.data.dirlab import HALVES, DirLab, DirLabCase, grid_of, read_landmarks, read_phase
from pullback.errors import InputError

SHAPE, EDGE = (40, 36, 30), 2.0


def chest(phase):
    """HU + 1024: a body with two lungs, whose base lies higher the nearer to exhale, and air about it."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    body = ((x - 19.5) / 18) ** 2 + ((y - 17.5) / 15) ** 2 < 1
    base = 5 + 4 * np.sin(np.pi * phase / 100)
    lungs = sum(((x - c) / 5) ** 2 + ((y - 17.5) / 8) ** 2 < 1 for c in (12, 27)) * (z > base) * (z < 26)
    return (1064 * body - 800 * (lungs > 0) + 100 * (x > 30) * (lungs > 0)).astype("<i2")


@pytest.fixture
def packs(tmp_path, monkeypatch):
    """Packs of three small cases; of one the names are as in the later packs."""
    monkeypatch.setattr(dirlab, "SIZES", ((SHAPE, EDGE),) * 3)
    for case in (1, 2, 3):
        later = case == 3
        pack = tmp_path / f"Case{case}{'Deploy' if later else 'Pack'}"
        images, marks = pack / "Images", pack / ("extremePhases" if later else "ExtremePhases")
        for folder in (images, marks):
            folder.mkdir(parents=True)
        for phase in range(0, 100, 10):
            chest(phase).ravel(order="F").tofile(images / f"case{case}_T{phase:02d}{'' if later else '_s'}.img")
        for phase in (0, 50):
            rows = np.array([[1, 1, 1], [40, 36, 30], [13, 18, 7 + (phase == 50) * 4]])
            name = f"case{case}_dirLab300_T{phase:02d}_xyz.txt" if later else f"Case{case}_300_T{phase:02d}_xyz.txt"
            np.savetxt(marks / name, rows, fmt="%d", delimiter="\t")
    return tmp_path


def test_axes_and_voxels_are_those_of_the_pack(packs):
    """The first index runs fastest in the file, to the left in the world; the second backwards, the third up."""
    image = read_phase(packs, 1, 0)
    assert image.grid.shape == SHAPE
    np.testing.assert_array_equal(image.data[0, 0].numpy(), chest(0))
    assert image.grid.spacing.tolist() == [EDGE, EDGE, 2.5]
    step = image.grid.to_world(torch.tensor([[[1.0], [1.0], [1.0]]]).double()) - image.grid.to_world(
        torch.zeros(1, 3, 1).double()
    )
    assert step[0, :, 0].tolist() == pytest.approx([-2.0, -2.0, 2.5])


@pytest.mark.parametrize("case", [1, 3])
def test_landmarks_count_from_one(packs, case):
    grid, points = grid_of(case), read_landmarks(packs, case, 0)
    voxels = grid.to_voxels(points.data.mT)[0].mT
    torch.testing.assert_close(voxels, torch.tensor([[0, 0, 0], [39, 35, 29], [12, 17, 6]]).double())
    moved = read_landmarks(packs, case, 50).data - points.data
    assert moved[0].norm(dim=1).tolist() == pytest.approx([0, 0, 10])  # 4 slices of 2.5 mm


def test_a_pair_is_exhale_and_inhale_with_the_phases_between(packs):
    case = DirLabCase(str(packs), 1, spacing=3.0, shape=(24, 16, 20))
    pair = case.load()
    assert pair.fixed.grid.shape == (24, 16, 20)
    assert pair.fixed.grid.spacing.tolist() == pytest.approx([3.0] * 3)
    assert len(pair.between) == 4
    assert pair.between.times.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8])
    dark = [float((image.data < 0.3).sum()) for image in (pair.moving, *pair.between, pair.fixed)]
    assert dark == sorted(dark, reverse=True)  # less and less air
    assert dark[0] > dark[-1] + 20
    middle = pair.fixed.grid.to_voxels(
        read_phase(packs, 1, 0).grid.to_world(torch.tensor([[[19.5], [17.5], [15.5]]]).double())
    )
    torch.testing.assert_close(middle[0, :, 0], torch.tensor([11.5, 7.5, 9.5]).double(), atol=0.6, rtol=0)
    off = pair.fixed_points.data - pair.moving_points.data
    assert float(off.norm(dim=-1).mean()) == pytest.approx(10 / 3)


def test_both_halves_of_a_breath_teach_and_one_is_measured(packs):
    data = DirLab(str(packs), fold=1)
    assert [(case.number, case.half) for case in data.train.cases] == [(1, 0), (1, 1)]
    assert data.validation.names == ("case3",)
    assert data.test.names == ("case2",)
    assert [case.half for case, _ in data.test.pairs] == [0]
    assert [half[0] for half in HALVES] == [0, 0]
    assert [half[-1] for half in HALVES] == [50, 50]
    assert not {*HALVES[0][1:-1]} & {*HALVES[1][1:-1]}


def test_what_is_not_a_pack_is_refused(packs):
    with pytest.raises(InputError, match="a case from 1 to 3"):
        grid_of(4)
    with pytest.raises(InputError, match=r"no folder given.*--data DIR"):
        _ = DirLab().test
    with pytest.raises(InputError, match="fold 7: one of 0 to 2"):
        DirLab(fold=7)
    image = packs / "Case1Pack" / "Images" / "case1_T10_s.img"
    image.write_bytes(image.read_bytes()[:-2])
    with pytest.raises(InputError, match="numbers of 16 bits expected, got 43199"):
        read_phase(packs, 1, 10)
    image.unlink()
    with pytest.raises(InputError, match=r"Images: one case1_T10.*expected, got 0; there is case1_T00_s\.img"):
        read_phase(packs, 1, 10)
    marks = packs / "Case1Pack" / "ExtremePhases" / "Case1_300_T00_xyz.txt"
    marks.write_text("0 1 1\n")
    with pytest.raises(InputError, match="voxels from 1 to 40, 36, 30"):
        read_landmarks(packs, 1, 0)
    marks.write_text("one two three\n")
    with pytest.raises(InputError, match="rows of three numbers"):
        read_landmarks(packs, 1, 0)
    data = np.full(SHAPE, 1064, "<i2")
    data.ravel(order="F").tofile(packs / "Case2Pack" / "Images" / "case2_T00_s.img")
    with pytest.raises(InputError, match="no lungs found"):
        DirLabCase(str(packs), 2).load()


def test_sizes_are_of_ten_patients():
    assert len(dirlab.SIZES) == 10
    assert {shape[:2] for shape, _ in dirlab.SIZES[:5]} == {(256, 256)}
    assert {shape[:2] for shape, _ in dirlab.SIZES[5:]} == {(512, 512)}


def test_the_published_start_of_real_packs(shared):
    root = shared / "data" / "dirlab_4dct"
    if not root.is_dir():
        pytest.skip("no real data: `shared/data/dirlab_4dct` is missing")
    off = [read_landmarks(root, c, 0).data - read_landmarks(root, c, 50).data for c in range(1, 11)]
    assert float(torch.stack([each.norm(dim=-1).mean() for each in off]).mean()) == pytest.approx(8.46, abs=0.01)
