"""What every energy promises. The test walks `pullback.energies` and counts what it has seen."""

import inspect
from dataclasses import replace

import pytest
import torch

import pullback.energies
from pullback.alignment import Alignment, Pair
from pullback.energies import LNCC, MI, MIND, MSE, NCC, NGF, NMI, SSIM, Diffusion, Energy, Kinetic, Sum, Weighted
from pullback.energies.energy import parts
from pullback.methods.pair.classical import ACCURATE, BALANCED, FAST
from pullback.numerics.kernel import Sobolev
from pullback.numerics.smooth import gaussian
from pullback.space import Affine, Displacement, Grid, Image, Velocity
from pullback.workflows.choices import ENERGIES as NAMED

SHAPES = [(14, 12), (9, 10, 8)]
LEAVE_SOMETHING = {"MI", "NMI", "NGF"}  # of identical images: Parzen windows, and ε, take their share
GUIDED = {"SoftDice", "SoftHausdorff"}  # by labels, not images: test_overlap.py has theirs
GIVEN = {"Kinetic": Kinetic(Sobolev(1, 2)), "Sum": MSE() + 0.1 * Diffusion(), "Weighted": 0.5 * LNCC(5)}


def exported():
    found = {name: getattr(pullback.energies, name) for name in pullback.energies.__all__}
    return {n: c for n, c in found.items() if inspect.isclass(c) and issubclass(c, Energy) and c is not Energy}


KINDS = {name: kind for name, kind in exported().items() if name not in GUIDED}
ENERGIES = {name: GIVEN[name] if name in GIVEN else kind() for name, kind in KINDS.items()}
every = pytest.mark.parametrize("energy", ENERGIES.values(), ids=ENERGIES.keys())
shapes = pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_energy_is_visited():
    similarities = {"LNCC", "MI", "MIND", "MSE", "NCC", "NGF", "NMI", "SSIM"}
    assert set(ENERGIES) == similarities | {"Bending", "Diffusion", "Kinetic", "Sum", "Weighted"}
    assert set(ENERGIES) > LEAVE_SOMETHING
    assert all(isinstance(ENERGIES[name], kind) for name, kind in KINDS.items())
    assert exported().keys() - KINDS.keys() == GUIDED
    assert isinstance(ENERGIES["Sum"], Sum)
    assert isinstance(ENERGIES["Weighted"], Weighted)


@every
@shapes
def test_finite_with_finite_gradient_also_for_identical_images_at_the_identity(energy, shape):
    grid = Grid.centred(shape)
    textured, empty = noise(1, 1, *shape), torch.zeros(1, 1, *shape)
    half = textured.clone()
    half[:, :, :4] = 0
    for fixed, moving in ((textured, textured), (half, half), (half, noise(1, 1, *shape, seed=1)), (empty, empty)):
        pair = Pair(Image(fixed, grid), Image(moving, grid))
        for start in (torch.zeros(1, len(shape), *shape), noise(1, len(shape), *shape, seed=2)):
            for kind in (Displacement, Velocity):
                field = start.clone().requires_grad_()
                terms = energy.terms(Alignment(pair, kind(field, grid)))
                assert terms
                assert all(t.shape == () and t.dtype == torch.float32 and t.isfinite() for t in terms.values())
                (gradient,) = torch.autograd.grad(sum(terms.values()), field)
                assert gradient.isfinite().all()


@every
@shapes
@pytest.mark.parametrize("masks", [(False, False), (True, False), (True, True)])
def test_readiness_for_a_pair_changes_nothing(energy, shape, masks):
    grid = Grid.centred(shape)
    data, inside = noise(2, 1, *shape), noise(2, 1, *shape, seed=3) > -0.5
    images = [Image(data[n : n + 1], grid, inside[n : n + 1] if masks[n] else None) for n in range(2)]
    pair, field = Pair(*images), noise(1, len(shape), *shape, seed=2)
    one, other = field.clone().requires_grad_(), field.clone().requires_grad_()
    objective = (0.5 * energy + 0.5 * energy).on(pair)
    values = objective(Displacement(one, grid)), energy(Alignment(pair, Displacement(other, grid)))
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(v, f)[0] for v, f in zip(values, (one, other), strict=True)))


@pytest.mark.parametrize("name", ENERGIES)
@shapes
def test_smallest_at_identical_images_without_motion(name, shape):
    grid, data, energy = Grid.centred(shape), noise(1, 1, *shape), ENERGIES[name]
    still = Alignment(Pair(Image(data, grid), Image(data, grid)), Displacement.identity(grid, data))
    least = float(energy(still))
    assert least == pytest.approx(0, abs=1e-3) or name in LEAVE_SOMETHING
    for seed in range(1, 4):
        moved = Alignment(still.pair, Displacement(noise(1, len(shape), *shape, seed=seed), grid))
        assert float(energy(moved)) > least + 0.05


PRESETS = {"fast": FAST.deformable, "balanced": BALANCED.deformable, "accurate": ACCURATE.deformable}
LAWFUL = {  # LNCC without noise is the common form, whose ε is a floor: test_lncc.py says what there is to gain
    **{f"LNCC({w}, {n})": LNCC(w, n) for w in (3, 9, 21) for n in (1e-4, 0.03, 0.1, 0.5)},
    **{f"{kind.__name__}({bins})": kind(bins) for kind in (MI, NMI) for bins in (4, 16, 32, 100)},
    **{f"NGF({epsilon})": NGF(epsilon) for epsilon in (0.01, 0.3, 3.0)},
    **{f"MIND{p}": MIND(*p) for p in [(1, 2, True), (0, 1, False), (2, 3, True)]},
    **{f"SSIM{p}": SSIM(*p) for p in [(7, None), (3, None), (11, 1.5)]},
    "MSE": MSE(),
    "NCC": NCC(),
    "Sum": 0.5 * LNCC(5, 0.1) + 0.3 * MSE() + 0.1 * Diffusion(),
    **{f"preset {name}": deformed.energy for name, deformed in PRESETS.items()},
    "presets, coarse": FAST.deformable.coarse,
    **{f"--energy {name}": energy for name, energy in NAMED.items()},
}


def scenes(shape):
    """Texture; the same so faint that floors count; a body of it in nothing; one without texture; noise beside it."""
    axes = [torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape]
    radius = torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0)[None, None]
    body = torch.sigmoid(10 * (0.75 - radius))
    waves = gaussian(noise(1, 1, *shape).double(), 1.2)
    waves = waves / waves.std()
    speckle = noise(1, 1, *shape, seed=3).double()
    return (0.5 + 0.2 * waves, 0.5 + 0.01 * waves, body * (0.6 + 0.03 * waves), body, body + 0.02 * speckle)


@pytest.mark.parametrize("energy", LAWFUL.values(), ids=LAWFUL.keys())
@shapes
@pytest.mark.parametrize("masked", [False, True])
def test_identical_images_are_a_minimum_for_all_parameters(energy, shape, masked):
    """However faint, wherever the masks lie: no motion, small or large, is better than none, and none pulls at it.

    (NGF gains by a moving mask that hides what is flat: there the fixed image alone has one.)
    """
    d, grid = len(shape), Grid.centred(shape)
    mask = gaussian(noise(1, 1, *shape, seed=9), 1.0) > -0.2 if masked else None
    smooth, rough = gaussian(noise(1, d, *shape, seed=1).double(), 2.0), noise(1, d, *shape, seed=2).double()
    outwards = 0.1 * (grid.voxels(smooth) - torch.tensor(shape).view(-1, *[1] * d) / 2)[None]
    motions = [a * u for u in (smooth / smooth.std(), outwards, -outwards) for a in (0.01, 1.0)] + [0.3 * rough]
    for data in scenes(shape):
        image = Image(torch.cat([data, data.flip(2)], 1), grid, mask)
        pair = Pair(image, replace(image, mask=None) if isinstance(parts(energy)[0], NGF) else image)
        field = torch.zeros(1, d, *shape, dtype=torch.float64, requires_grad=True)
        least = energy(Alignment(pair, Displacement(field, grid)))
        (slope,) = torch.autograd.grad(least, field)
        assert slope.norm() < 1e-9
        assert all(float(energy(Alignment(pair, Displacement(u, grid)))) > least.item() - 1e-10 for u in motions)


@every
@shapes
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("batches", [(3, 3), (1, 3), (3, 1)], ids=["both", "one fixed", "one moving"])
def test_batches_and_channels_are_averaged(energy, shape, masked, batches):
    """Channels of unlike scale and offset: none may see another's range. Masks alike in size: voxels are averaged."""
    grid, d = Grid.centred(shape), len(shape)
    scale = torch.tensor([1.0, 7.0, 0.3], dtype=torch.float64).view(1, 3, *[1] * d)
    fixed, moving = (noise(b, 3, *shape, seed=s).double() * scale - scale for s, b in enumerate(batches))
    field = 0.3 * noise(3, d, *shape, seed=4).double()
    mask = noise(1, 1, *shape, seed=5) > -1.5
    mask = torch.cat([mask, mask.flip(2), mask.flip(3)]) if masked else None

    def value(b, c):
        f, m = (t[b if len(t) > 1 else slice(None), c] for t in (fixed, moving))
        pair = Pair(Image(f, grid, mask if mask is None else mask[b]), Image(m, grid))
        return float(energy(Alignment(pair, Displacement(field[b], grid))))

    each = [value(slice(b, b + 1), slice(c, c + 1)) for b in range(3) for c in range(3)]
    assert value(slice(None), slice(None)) == pytest.approx(sum(each) / 9, rel=1e-9)


@every
@shapes
def test_what_the_mask_hides_has_no_influence(energy, shape):
    """In float64: where the identity's voxels are rounded, a trace of 50 times the contrast seeps in."""
    grid = Grid.centred(shape)
    fixed, moving = noise(1, 1, *shape).double(), noise(1, 1, *shape, seed=1).double()
    mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
    mask[:, :, 2:7, 3:8] = True
    elsewhere = torch.where(mask, 0, 50 * noise(1, 1, *shape, seed=2).double())
    answers = []
    for f, m in ((fixed, moving), (fixed + elsewhere, moving), (fixed, moving + elsewhere)):
        field = torch.zeros(1, len(shape), *shape, dtype=torch.float64, requires_grad=True)
        # half a voxel of the moving image is looked at from the mask's edge: its own mask keeps that out of the sum
        alignment = Alignment(Pair(Image(f, grid, mask), Image(m, grid, mask)), Displacement(field, grid))
        value = energy(alignment)
        (gradient,) = torch.autograd.grad(value, field)
        deep = gradient[:, :, 3:6, 4:7]  # at the mask's edge the slope of the moving image reaches one voxel out
        answers.append((value.detach(), deep))
        assert not gradient[~mask.expand_as(gradient)].any()
    for value, gradient in answers[1:]:
        torch.testing.assert_close(value, answers[0][0], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(gradient, answers[0][1], rtol=1e-7, atol=1e-11)


@every
@shapes
def test_inputs_are_left_alone_and_the_answer_is_repeatable(energy, shape):
    grid = Grid.centred(shape)
    fixed, moving, field = noise(1, 1, *shape), noise(1, 1, *shape, seed=1), noise(1, len(shape), *shape, seed=2)
    kept = [t.clone() for t in (fixed, moving, field)]
    pair = Pair(Image(fixed, grid), Image(moving, grid))
    field.requires_grad_()
    first = energy(Alignment(pair, Displacement(field, grid)))
    first.backward()
    assert torch.equal(energy(Alignment(pair, Displacement(field, grid))), first)
    assert all(torch.equal(a, b) for a, b in zip((fixed, moving, field.detach()), kept, strict=True))


@every
def test_affines_can_be_descended_too(energy, oblique):
    grid = oblique((8, 9, 7), 1)
    pair = Pair(Image(noise(1, 1, 8, 9, 7), grid), Image(noise(1, 1, 8, 9, 7, seed=1), grid))
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :] += 0.05 * noise(3, 4, seed=2)
    matrix.requires_grad_()
    (gradient,) = torch.autograd.grad(energy(Alignment(pair, Affine(matrix))), matrix)
    assert gradient.isfinite().all()
