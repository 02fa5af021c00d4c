"""Where registrations begin: cheap where that will do, searched where it will not, and how sure it is."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.spatial.transform import Rotation

from pullback.alignment import Alignment, Pair
from pullback.data import normalised
from pullback.errors import InputError
from pullback.files import read_image, read_labels
from pullback.methods.pose.cross_ngf import SMALL
from pullback.methods.pose.initialise import Initialise, from_header, from_masses
from pullback.metrics import Dice
from pullback.numerics.random import make_generator
from pullback.numerics.smooth import gaussian
from pullback.solvers.initialise import moments
from pullback.space import Affine, Grid, Image

TINY = replace(  # for small images: little blur
    SMALL,
    blur=(2.5, 2.5, 2.0, 1.5, 1.0),
    downsampling=(3, 3, 2, 2, 1),
    rotations=(500, 300, 100, 60, 0),
    steps=(12.0, 5.0, 2.5, 0.8),
    kept=(20, 10, 3, 1),
    voxels=60_000,
)
QUICK = Initialise(search=None)
SHAPES = {2: (40, 44), 3: (30, 34, 28)}


def turn(ndim: int, degrees: float, shift: float) -> Affine:
    axis = [0.0, 0.0, 1.0] if ndim == 2 else [0.48, 0.6, 0.64]
    rotation = Rotation.from_rotvec([math.radians(degrees) * a for a in axis]).as_matrix()
    matrix = torch.eye(ndim + 1, dtype=torch.float64)
    matrix[:-1, :-1] = torch.from_numpy(rotation[:ndim, :ndim])
    matrix[:-1, -1] = shift
    return Affine(matrix)


@pytest.fixture(scope="module")
def picture(waves, oblique):
    """A lopsided body with texture, carried by a motion, on a grid of its own."""

    def make(ndim: int, placed: Affine, seed: int = 1, invert: bool = False) -> Image:
        grid = oblique(SHAPES[ndim], seed, 1.0, 1.2)
        home = placed.inverse().at(grid.to_world(grid.voxels(placed.matrix)[None]))
        axes = torch.tensor([13.0, 9.0, 10.0][:ndim], dtype=torch.float64).view(1, -1, *[1] * ndim)
        away = (home / axes).norm(dim=1, keepdim=True) + 0.25 * (home[:, :1] / 13) * (home[:, 1:2] / 9)
        texture = (waves(ndim, 4, 12.0, count=6)(home) + 1) / 2
        image = ((0.3 + texture) * torch.sigmoid(10 * (1 - away))).float()
        return Image(1.3 - image if invert else image, grid)

    return make


def apart(found, truth, ndim: int) -> float:
    """The greatest distance at 10 mm from the middle of the body."""
    points = torch.randn(200, ndim, dtype=torch.float64, generator=make_generator(2))
    points = 10 * points / points.norm(dim=1, keepdim=True)
    return float((found(points) - truth(points)).norm(dim=1).max())


@pytest.mark.parametrize("ndim", [2, 3])
def test_good_headers_are_preferred_and_sure(picture, ndim):
    """A few mm and degrees off; masses and moments would do as well, but headers come first."""
    truth = turn(ndim, 5.0, 1.0)
    fixed, moving = picture(ndim, Affine.identity(ndim)), picture(ndim, truth, 4)
    begun = Initialise(search=TINY)(fixed, moving)
    assert begun.stats.origin == "header"
    assert begun.stats.confidence > Initialise().sure
    assert apart(begun.transform, truth, ndim) < 2.0


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_order_of_guesses_is_the_order_of_preference(picture, ndim):
    fixed = picture(ndim, Affine.identity(ndim))
    one, two = ("masses", from_masses), ("header", from_header)
    assert replace(QUICK, guesses=(one, two))(fixed, fixed).stats.origin == "masses"
    assert replace(QUICK, guesses=(two, one))(fixed, fixed).stats.origin == "header"


@pytest.mark.parametrize("ndim", [2, 3])
def test_far_off_headers_are_left_for_middles_or_masses(picture, ndim):
    """Shifted by 70 mm, the grid with it: no overlap as the headers have it."""
    truth = turn(ndim, 4.0, 70.0)
    fixed, near = picture(ndim, Affine.identity(ndim)), picture(ndim, turn(ndim, 4.0, 0.0), 4)
    affine = near.grid.affine.clone()
    affine[:-1, -1] += 70.0
    begun = QUICK(fixed, Image(near.data, Grid(near.grid.shape, affine)))
    assert begun.stats.origin in {"centres", "masses"}
    assert apart(begun.transform, truth, ndim) < 2.0


@pytest.mark.parametrize("ndim", [2, 3])
def test_turned_bodies_are_found_by_moments_or_search(picture, ndim):
    truth = turn(ndim, 140.0, 3.0)
    fixed, moving = picture(ndim, Affine.identity(ndim)), picture(ndim, truth, 4)
    begun = Initialise(search=TINY)(fixed, moving)
    assert begun.stats.origin in {"moments", "search"}
    assert apart(begun.transform, truth, ndim) < 3.0


@pytest.mark.parametrize("ndim", [2, 3])
def test_where_no_guess_is_sure_it_searches(picture, ndim):
    """A guess that cannot know of the turn; contrast is inverted too."""
    truth = turn(ndim, 140.0, 3.0)
    fixed, moving = picture(ndim, Affine.identity(ndim)), picture(ndim, truth, 4, invert=True)
    few = Initialise(guesses=(("header", from_header),), search=TINY, sure=math.inf)
    begun, cheap = few(fixed, moving), replace(few, search=None)(fixed, moving)
    assert begun.stats.origin == "search"
    assert apart(begun.transform, truth, ndim) < 3.0 < apart(cheap.transform, truth, ndim)


def seen(value, placed: Affine, grid: Grid, seed: int) -> Image:
    """What `value` makes of the points of a world in which the grid lies elsewhere, with some noise."""
    where = placed.inverse().at(grid.to_world(grid.voxels(placed.matrix)[None]))[0]
    grain = torch.randn(1, 1, *grid.shape, generator=make_generator(seed))
    return Image((value(where).float()[None, None] + 0.02 * grain).clamp(0, 1), grid)


@pytest.mark.parametrize("ndim", [2, 3])
def test_round_things_are_not_searched_for(ndim):
    """No turn changes them, so none is a rival."""

    def ball(where):
        away = where.norm(dim=0)
        return 0.1 + 0.8 * torch.sigmoid(2 * (9 - away)) - 0.5 * torch.exp(-(((away - 5) / 1.2) ** 2))

    truth = turn(ndim, 0.0, 2.0)
    fixed, moving = (seen(ball, p, Grid.centred(SHAPES[ndim]), n) for n, p in enumerate((turn(ndim, 0.0, 0.0), truth)))
    begun = Initialise(search=TINY)(fixed, moving)
    assert begun.stats.origin != "search"
    assert begun.stats.confidence > Initialise().sure
    middle = torch.zeros(1, ndim, dtype=torch.float64)
    assert float((begun.transform(middle) - truth(middle)).norm()) < 0.5


def test_unrelated_images_give_no_confidence():
    """Noise against noise: no start stands out of chance as that of one picture does."""
    grid = Grid.centred((26, 24, 28), 1.5)
    one, two = (Image(gaussian(torch.rand(1, 1, *grid.shape, generator=make_generator(s)), 1.2), grid) for s in (1, 2))
    unrelated, same = QUICK(one, two).stats.confidence, QUICK(one, one).stats.confidence
    assert unrelated < QUICK.sure < same


@pytest.mark.parametrize("ndim", [2, 3])
def test_starts_are_rigid(picture, ndim):
    fixed, moving = picture(ndim, Affine.identity(ndim)), picture(ndim, turn(ndim, 60.0, 2.0), 4)
    linear = replace(QUICK, guesses=(("moments", moments),))(fixed, moving).transform.matrix[:-1, :-1]
    torch.testing.assert_close(linear @ linear.T, torch.eye(ndim, dtype=torch.float64))


def test_a_guess_that_cannot_be_made_is_left_out(picture):
    """Nothing stands out of an even background, so there are no masses; the header remains."""
    grid = Grid.centred((30, 30))
    stripes = ((torch.arange(30) % 4) < 2).float().expand(1, 1, 30, 30)
    masked = Image(stripes.clone(), grid, torch.zeros(1, 1, 30, 30, dtype=torch.bool))
    masked.mask[..., 5:25, 5:25] = True

    def fails(fixed, moving):
        raise InputError("nothing stands out")

    begun = replace(QUICK, guesses=(("masses", fails), ("header", from_header)))(masked, masked)
    assert begun.stats.origin == "header"


def test_a_search_that_finds_no_overlap_leaves_the_best_guess(picture):
    """A thin slab and a cube never share half of the slab, so the search refuses; the header is still a start."""
    whole = picture(3, Affine.identity(3))
    grid = Grid.centred((60, 60, 5), 1.5)
    block = Grid.centred((20, 20, 20), 1.2)

    def seen(onto):
        where = onto.to_world(onto.voxels(whole.data)[None])
        return Image((where / 5).sin().prod(1, keepdim=True) + 1, onto)

    begun = Initialise(search=TINY, sure=math.inf, least=0.05)(seen(grid), seen(block))
    assert begun.stats.origin == "header"


def test_images_that_never_meet_are_refused():
    grid = Grid.centred((20, 20))
    far = Grid((20, 20), grid.affine + torch.tensor([[0, 0, 500.0], [0, 0, 0], [0, 0, 0]], dtype=torch.float64))
    data = torch.rand(1, 1, 20, 20, generator=make_generator(1))
    with pytest.raises(InputError, match="no start found"):
        replace(QUICK, guesses=(("header", from_header),))(Image(data, grid), Image(data, far))


def test_a_start_explains_the_images_and_not_a_corner_of_them(shared):
    """MR of one patient to CT of another: turned to where hardly anything overlaps, two edges match best of all."""
    folder = shared / "data" / "totalsegmentator_ct_mr" / "tests" / "reference_files"
    fixed, moving = (normalised(read_image(folder / f"example_{kind}_sm.nii.gz")) for kind in ("ct", "mr"))
    organs = []
    for name, image in (("example_seg", fixed), ("example_seg_mr", moving)):
        labels = read_labels(folder / f"{name}.nii.gz", on=image.grid)
        organs.append(replace(labels, data=labels.data * (labels.data <= 9)))  # the same nine in both models
    begun = Initialise(search=None)(fixed, moving)
    dice = Dice()(Alignment(Pair(fixed, moving, *organs), begun.transform))["dice"]
    assert dice > 0.3
