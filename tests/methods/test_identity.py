"""Identical images stay where they are, whatever is in them and whichever register looks at them.

Every similarity is least at identical images, and nothing but rounding pulls there: a descent keeps the best that it
has seen, which is the start, or finds that it began at the bottom.
"""

import pytest
import torch

from pullback.data import normalised
from pullback.energies import LNCC, MI, MSE, NGF, Diffusion
from pullback.files import read_image
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.methods.pair.feature_registration import FeatureRegistration
from pullback.methods.pose.cross_ngf import SMALL
from pullback.methods.pose.initialise import Initialise
from pullback.numerics.smooth import gaussian
from pullback.solvers import Converged, DeformableStage, Descend, FieldAdam, InstanceOptimisation, LinearStage, adam
from pullback.space import Grid, Image, Motion, resampled
from pullback.training import seeded
from pullback.workflows.choices import ENERGIES, KINDS, PRESETS, classical

STILL = 0.02
"""Voxels: what is left to rounding."""
LINEAR = 0.5
"""Voxels that mutual information within the moving view may move a small body, at most: 0.41 was seen. The bound that
`MI(in_view=True)` has costs a second histogram a step, which linear stages do not take."""
FOUND = 0.25
"""Voxels: after a search of whole steps, a descent of a fixed number of steps between features ends near the bottom."""


def body(shape, texture, seed=0):
    """A bent ellipsoid of level 0.6, and in it a smooth texture of this standard deviation."""
    x, *others = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = torch.stack([x + 0.5 * others[0].square() + 0.3 * others[-1] - 0.1, *others]).norm(dim=0)
    waves = gaussian(torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(seed)), 1.2)
    return torch.sigmoid(8 * (1 - radius / 0.72)) * (0.6 + texture * waves / waves.std())


def speckle(shape):
    return torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(1))


def folded(shape):
    """Brain-like: two levels, layers, a dark middle and a skull."""
    x, y, *z = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = torch.stack([x, 1.1 * y, *z]).norm(dim=0)
    layers = 0.55 + 0.25 * torch.sin(9 * x + 2 * y).mul(torch.cos(7 * y))
    inside, middle, skull = (
        torch.sigmoid(25 * (0.7 - radius)),
        torch.sigmoid(25 * (0.2 - radius)),
        (radius - 0.88) / 0.05,
    )
    return (inside * layers * (1 - 0.8 * middle) + 0.9 * torch.exp(-skull.square()))[None, None]


def bean(shape):
    """Hippocampus-like: a bright, bent body in grey surroundings that vary."""
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    bent = torch.sigmoid(14 * (0.35 - torch.stack([x - 0.5 * y.square() + 0.2, 0.5 * y, z]).norm(dim=0)))
    return (0.3 + 0.4 * bent)[None, None] + 0.05 * body(shape, 0.3, seed=4)


SHAPE = (20, 24, 18)
KIND = {
    "brain": folded(SHAPE),
    "hippocampus": bean(SHAPE),
    "faint texture": body(SHAPE, 0.03),
    "noise": speckle(SHAPE),
    "constant": body(SHAPE, 0.0),
    "2-D": body((40, 36), 0.03),
}
of_each_kind = pytest.mark.parametrize("data", KIND.values(), ids=KIND)


def moves(register, image: Image) -> float:
    """The greatest displacement of any voxel, in voxels."""
    return float(register(image, image).transform.displacement(image.grid).norm(dim=1).max())


def seen(data: torch.Tensor) -> Image:
    return Image(data.float(), Grid.centred(tuple(data.shape[2:])))


FIELDS = {
    **{f"{name}, aligned": classical(name, aligned=True) for name in PRESETS},
    **{f"--energy {name}": classical("fast", energy=name, aligned=True) for name in ENERGIES},
    **{f"--transform {name}": classical("fast", name, aligned=True) for name in KINDS},
    "DeformableStage": DeformableStage(),
    "InstanceOptimisation": InstanceOptimisation(LNCC(5, noise=0.1) + 0.5 * Diffusion(), Descend(8, until=Converged())),
    **{
        f"Optimised, no stop, {similarity}": InstanceOptimisation(
            similarity + 1.0 * Diffusion(), Descend(8, optimiser=optimiser)
        )
        for similarity, optimiser in [(LNCC(5, 0.1), FieldAdam()), (MSE(), adam), (MI(), adam), (NGF(), adam)]
    },
}


@pytest.mark.slow
@of_each_kind
@pytest.mark.parametrize("register", FIELDS.values(), ids=FIELDS)
def test_no_field_moves_what_is_the_same(register, data):
    assert moves(register, seen(data)) < STILL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "kind"),
    [("fast", k) for k in KIND] + [(p, k) for p in ("balanced", "accurate") for k in ("2-D", "brain")],
)
def test_presets_leave_what_is_the_same(preset, kind):
    """All stages: they differ from one another in the field, which moves nothing here, and in their levels."""
    assert moves(PRESETS[preset], seen(KIND[kind])) < LINEAR


LINEARS = {
    "Initialise": Initialise(),
    "rigid": LinearStage(Motion.rigid),
    "affine": LinearStage(Motion.affine),
}


@of_each_kind
@pytest.mark.parametrize("register", LINEARS.values(), ids=LINEARS)
def test_linear_maps_of_what_is_the_same_are_nearly_the_identity(register, data):
    assert moves(register, seen(data)) < LINEAR


def test_a_global_search_finds_what_is_the_same():
    """By random rotations and whole shifts: no finer than these."""
    assert moves(SMALL, seen(KIND["2-D"])) < 1


@of_each_kind
def test_features_find_what_is_the_same(data):
    """ConvexAdam, and an untrained network of features: both begin with a search of whole steps."""
    image = seen(data)
    with seeded(3):
        network = FeatureRegistration(image.grid.ndim, widths=(8, 8, 8)).eval()
    assert moves(ConvexAdam(), image) < FOUND
    assert moves(network, image) < FOUND


@pytest.mark.parametrize(
    ("preset", "shape"),
    [*((preset, (46, 42)) for preset in PRESETS), ("fast", (22, 24, 20)), ("balanced", (22, 24, 20))],
)
def test_a_faint_texture_two_voxels_off_is_found_again(preset, shape):
    """The moving image shows it where its own grid says; nothing is resampled."""
    wide = body(tuple(n + 2 for n in shape), 0.05)
    inner = [slice(1, -1)] * (len(shape) - 1)
    fixed, moving = (seen(wide[(..., slice(a, a + shape[0]), *inner)].clone()) for a in (0, 2))
    found = PRESETS[preset](fixed, moving).transform.displacement(fixed.grid)
    found[:, 0] += 2
    inside = fixed.data[0, 0] > 0.3
    off = found.norm(dim=1)[0][inside]
    assert float(off.mean()) < 0.3
    assert float(off.max()) < 0.5


@pytest.mark.parametrize(
    ("preset", "kind"),
    [
        ("fast", "brain"),
        *(
            pytest.param(*way, marks=pytest.mark.nightly)
            for way in (
                ("fast", "hippocampus"),
                ("balanced", "hippocampus"),
                ("balanced", "brain"),
                ("accurate", "brain"),
                ("accurate", "hippocampus"),
            )
        ),
    ],
)
def test_real_anatomy_stays_too(shared, preset, kind):
    if kind == "brain":
        image = resampled(read_image(shared / "data" / "brains" / "2mm" / "sub-13_T1w.nii.gz"), (5.0, 5.0, 5.0))
    else:
        image = normalised(read_image(min((shared / "data" / "hippocampus" / "imagesTr").iterdir())))
    assert moves(classical(preset, aligned=True), image) < STILL
    assert moves(PRESETS["fast"], image) < STILL
