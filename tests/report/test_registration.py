"""The report: one file that needs nothing else, with the world the right way up."""

import base64
import io
import itertools
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from pullback.alignment import Alignment, Pair
from pullback.report.pictures import FOLDED, cuts, picture
from pullback.report.registration import write_report
from pullback.space import Affine, Displacement, Grid, Image, Labels

NUMBERS = {"before": {"dice": 0.5, "dice/3": 0.25}, "after": {"dice": 0.75, "dice/3": 0.5, "folding %": 0.012}}
STORED = [(order, flips) for order in itertools.permutations(range(3)) for flips in ((0, 0, 0), (1, 0, 1), (1, 1, 1))]


def smooth_pair(shape, seed=0, size=0.8):
    """A pair on one grid and a gentle transform."""
    random = torch.Generator().manual_seed(seed)
    grid = Grid.centred(shape, 2.0)
    data = torch.rand(1, 1, *shape, generator=random)
    labels = Labels((data > 0.5).long(), grid)
    pair = Pair(Image(data, grid), Image(data.flip(2), grid), labels, labels, name="a ← b")
    return Alignment(pair, Displacement(size * torch.rand(1, len(shape), *shape, generator=random), grid))


def page_of(alignment, tmp_path, title="Two", **rest):
    write_report(alignment, tmp_path / "report.html", title, NUMBERS, **rest)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def shown(page, name):
    """The picture that the page calls `name`, `(rows, columns, 3)` uint8."""
    uri = re.search(rf'<image id="{name}"[^>]*base64,([^"]+)"', page)[1]
    return np.asarray(Picture.open(io.BytesIO(base64.b64decode(uri))).convert("RGB"))


@pytest.mark.parametrize("shape", [(24, 20), (16, 20, 12)])
def test_one_file_that_needs_nothing_else(shape, tmp_path):
    page = page_of(smooth_pair(shape), tmp_path, notes=["A note."], table=[{"method": "none", "dice": "0.5"}])
    assert not re.search(r"https?://|@import", page)
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert len(page) < 1_000_000
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page))
    assert {a or b for a, b in used} <= set(re.findall(r'id="([^"]+)"', page))
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    for words in ("A note.", "<td>0.5</td>", "0.750", "a ← b", "Each label"):
        assert words in page


def test_noise_stays_small(tmp_path):
    page = page_of(smooth_pair((500, 400)), tmp_path)
    assert len(page) < 3_000_000


def test_what_only_rounding_leaves_of_a_number_is_0(tmp_path):
    write_report(smooth_pair((12, 12)), tmp_path / "r.html", "", {"before": {"sdlogj": 8e-16, "folding %": 3e-4}})
    assert re.findall(r"<td>([^<]*)</td>", (tmp_path / "r.html").read_text(encoding="utf-8")) == ["0", "0.0003"]


def test_everything_a_caller_says_is_escaped(tmp_path):
    evil = "<script>alert('&')</script>"
    alignment = smooth_pair((12, 12))
    write_report(alignment, tmp_path / "r.html", evil, {evil: {evil: 1.0}}, [evil], [{evil: evil}])
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "alert('" not in page
    assert page.count("&lt;script&gt;alert") == 7


@pytest.mark.parametrize(("order", "flips"), STORED)
def test_right_is_right_and_superior_is_up_however_it_is_stored(order, flips, tmp_path):
    """A bright corner at right, anterior, superior, on a dim body, in every stored order of the axes."""
    shape = torch.tensor([24, 30, 18])
    world = 0.2 + 0.3 * torch.rand(shape.tolist(), generator=torch.Generator().manual_seed(0))
    world[16:22, 22:28, 12:16] = 1.0
    marks = torch.zeros_like(world, dtype=torch.int64)
    marks[16:22, 22:28, 12:16] = 1
    back = [axis for axis in range(3) if flips[axis]]
    permutation = torch.zeros(4, 4, dtype=torch.float64)
    permutation[3, 3] = 1
    for stored, axis in enumerate(order):
        permutation[axis, stored] = -2.0 if flips[stored] else 2.0
        permutation[axis, 3] = 2.0 * (float(shape[axis]) - 1) if flips[stored] else 0.0
    data = world.permute(order).flip(back)[None, None].contiguous()
    grid = Grid(tuple(data.shape[2:]), permutation)
    labels = Labels(marks.permute(order).flip(back)[None, None].contiguous(), grid)
    image = Image(data, grid)
    page = page_of(Alignment(Pair(image, image, labels, labels), Affine.identity(3)), tmp_path)
    for n, (right, up) in enumerate([(0, 1), (0, 2), (1, 2)]):
        bright = shown(page, f"fixed-{n}")[..., 0] > 200
        rows, columns = np.nonzero(bright)
        height, width = bright.shape
        pad = [math.ceil(0.04 * (int(shape[a]) - 1)) for a in (right, up)]
        assert (width, height) == (shape[right] + 2 * pad[0], shape[up] + 2 * pad[1])
        low, high = [16, 22, 12], [21, 27, 15]
        assert (columns.min(), columns.max()) == (low[right] + pad[0], high[right] + pad[0])
        assert (height - 1 - rows.max(), height - 1 - rows.min()) == (low[up] + pad[1], high[up] + pad[1])
    ends = re.findall(r'<span class="(\w+)" aria-hidden="true">(\w)</span>', page)[:12]
    assert "".join(end for _, end in ends) == "LRPALRISPAIS"


def test_an_oblique_image_is_shown_upright():
    """A ball off the middle of an oblique, anisotropic, flipped grid appears where the world has it."""
    turn = torch.linalg.matrix_exp(torch.tensor([[0, -0.4, 0.2], [0.4, 0, 0.1], [-0.2, -0.1, 0]], dtype=torch.float64))
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = turn @ torch.diag(torch.tensor([-1.0, 1.5, 3.0], dtype=torch.float64))
    grid = Grid((60, 44, 24), affine).about_origin((60, 44, 24))
    where = grid.to_world(grid.voxels(torch.zeros((), dtype=torch.float64))[None])
    ball = torch.tensor([9.0, 6.0, 8.0], dtype=torch.float64).view(1, 3, 1, 1, 1)
    data = 0.2 + 0.8 * ((where - ball).norm(dim=1, keepdim=True) < 6)
    labels = Labels((data > 0.5).long(), grid)
    image = Image(data.float(), grid)
    for cut in cuts(Alignment(Pair(image, image, labels, labels), Affine.identity(3))):
        rows, columns = np.nonzero(cut.fixed > 0.7)
        plane = cut.plane
        corner, edge = plane.grid.affine[:-1, -1], float(plane.grid.spacing[0])
        right = float(corner[plane.right]) + edge * columns.mean()
        up = float(corner[plane.up]) + edge * (cut.fixed.shape[0] - 1 - rows.mean())
        assert right == pytest.approx(float(ball.flatten()[plane.right]), abs=0.5)
        assert up == pytest.approx(float(ball.flatten()[plane.up]), abs=0.5)
        np.testing.assert_array_equal(cut.before, cut.fixed)


def test_folded_voxels_and_only_they_have_the_folded_colour(tmp_path):
    grid = Grid.centred((40, 40))
    data = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0)) + 0.1
    field = torch.zeros(1, 2, 40, 40)
    field[0, 0, 10:14, 20:30] = torch.tensor([0.0, -1.0, -3.0, -5.0])[:, None]
    alignment = Alignment(Pair(Image(data, grid), Image(data, grid)), Displacement(field, grid))
    folded = (alignment.jacobian[0, 0] <= 0).numpy()
    assert folded.any()
    page = page_of(alignment, tmp_path)
    yellow = (shown(page, "jacobian-0") == [int(FOLDED[i : i + 2], 16) for i in (1, 3, 5)]).all(-1)
    np.testing.assert_array_equal(yellow[2:-2, 2:-2], np.flipud(folded.T))
    assert f"<b>{folded.sum()}</b> of 1,600 voxels folded" in page


def test_before_is_the_identity_and_after_the_transform():
    """The moving image lies 4 mm to the right and the transform says so: after is fixed."""
    grid = Grid.centred((20, 24, 16), 2.0)
    body = torch.zeros(1, 1, 20, 24, 16)
    body[..., 6:12, 8:16, 4:12] = torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(1)) + 0.5
    shift = torch.eye(4, dtype=torch.float64)
    shift[0, 3] = 4.0
    pair = Pair(Image(body, grid), Image(body.roll(2, 2), grid))
    for cut in cuts(Alignment(pair, Affine(shift))):
        np.testing.assert_allclose(cut.after, cut.fixed, atol=1e-5)
        if cut.plane.right == 0:
            np.testing.assert_allclose(np.roll(cut.fixed, 2, axis=1), cut.before, atol=1e-5)


def test_a_plain_pair_and_one_constant_image(tmp_path):
    """No labels, no numbers, an image without contrast: still a page."""
    grid = Grid.centred((12, 10, 8))
    flat = Image(torch.ones(1, 1, 12, 10, 8), grid)
    write_report(Alignment(Pair(flat, flat), Displacement.identity(grid, flat.data)), tmp_path / "r.html", "t", {})
    assert "unlabelled" in (tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("shape", [(24, 20), (16, 20, 12)])
def test_one_picture_for_a_readme(shape, tmp_path):
    picture(smooth_pair(shape), tmp_path / "picture.png")
    height, width, _ = np.asarray(Picture.open(tmp_path / "picture.png").convert("RGB")).shape
    assert width > 1500
    assert height > 300
