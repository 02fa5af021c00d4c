"""Residual U-Net: its size, what it adds, how far it sees; and pre-alignment as an arm of a study."""

import json
import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from pullback.alignment import Alignment, Pair
from pullback.data import GrowingBrains, GrowthLaw, PairFolder, Prealigned, Tori
from pullback.energies import LNCC, Diffusion
from pullback.files import read_transform
from pullback.methods.pair.residual_unet import BLOCK, SHALLOW, WIDTHS, ResidualUNet
from pullback.metrics import Dice
from pullback.networks import Add, Decoder, Encoder, Transposed, batch_norm_relu, max_pooling
from pullback.networks.residual import Residual
from pullback.numerics.smooth import gaussian
from pullback.recipes import find
from pullback.recipes.residual_unet import AFFINE, PREALIGNED, RIGID
from pullback.space import Affine, Displacement, Grid, Image, Velocity, pull
from pullback.studies.residual_unet import BEFORE, arms, study
from pullback.study.arms import TrainedArm, Trial
from pullback.study.evaluate import unmoved
from pullback.study.recipe import as_data, from_yaml, to_yaml
from pullback.study.trained import AtItsSpacing, Trained
from pullback.testing import check_register, problems
from pullback.training import seeded


def net(ndim: int = 2, widths: tuple[int, ...] = (4, 8, 8), **words) -> ResidualUNet:
    with seeded(4):
        return ResidualUNet(ndim, widths, **words)


def speaking(network: ResidualUNet) -> ResidualUNet:
    """The same network, which answers with motions of voxels, by statistics of its own."""
    with seeded(5):
        nn.init.normal_(network.head.convolution.weight, std=0.5)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.running_mean, std=0.1)
    return network.eval()


@pytest.mark.parametrize("problem", [*problems(ndim=2), *problems("thin", ndim=3)], ids=str)
def test_contract(problem):
    ndim = problem.pair.fixed.grid.ndim
    with seeded(4):
        check_register(ResidualUNet(ndim, (4, 8, 8)).eval(), problem, solves=problem.name == "identity")


@pytest.mark.parametrize(("widths", "count"), [(WIDTHS, 550_027), (SHALLOW, 134_667)])
def test_its_weights_are_counted(widths, count):
    """A level of w channels has 27 w (before + 2 w) + 6 w of them, a growth 27 below w + 2 w, the head 27 w d + d."""

    def level(before: int, after: int) -> int:
        return 27 * after * (before + 2 * after) + 3 * 2 * after

    down = sum(level(a, b) for a, b in zip((2, *widths), widths, strict=False))
    up = sum(27 * b * w + 2 * w + level(w, w) for b, w in zip(widths[:0:-1], widths[-2::-1], strict=True))
    assert down + up + 27 * widths[0] * 3 + 3 == count
    assert sum(p.numel() for p in ResidualUNet(3, widths).parameters()) == count


def test_a_block_without_its_second_convolution_hands_on_what_it_is_given():
    """Up to the last ReLU: its input goes on beside it."""
    block = Residual(2, 3, batch_norm_relu(2), nn.BatchNorm2d).eval()
    nn.init.zeros_(block.second.weight)
    values = torch.randn(1, 3, 9, 8)
    assert torch.equal(block(values), values.relu())


def test_skips_are_added():
    """Where nothing comes from below, the decoder's blocks see the features of the encoder as they are."""
    with seeded(0):
        encoder = Encoder(2, 2, (4, 8), BLOCK, max_pooling).eval()
        decoder = Decoder(2, (4, 8), (4,), BLOCK, Transposed(batch_norm_relu, kernel=3), Add()).eval()
    nn.init.zeros_(decoder.grows[0].layer.weight)
    features = encoder(torch.randn(1, 2, 17, 14))
    (found,) = decoder(features)
    assert torch.equal(found, decoder.blocks[0](features[0]))


@pytest.mark.parametrize("axis", [2, 3])
def test_mirrored_images_and_kernels_have_the_mirrored_answer(axis):
    """Of a size that is halved evenly, and without what comes from below, for a growth of 3 has no mirror image."""
    network, mirrored = speaking(net(widths=(4, 8))), speaking(net(widths=(4, 8)))
    for module in mirrored.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.flip(axis)
    for each in (network, mirrored):
        nn.init.zeros_(each.decoder.grows[0].layer.weight)
    grid = Grid.centred((16, 24))
    images = torch.rand(2, 1, 1, 16, 24)
    one = network(*(Image(data, grid) for data in images)).transform.field
    other = mirrored(*(Image(data.flip(axis), grid) for data in images)).transform.field
    assert float(one.detach().abs().max()) > 0.1
    torch.testing.assert_close(other.flip(axis), one, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("widths", "reach"), [((1, 1, 1), 37), ((1, 1, 1, 1), 81)], ids=["shallow", "deep"])
def test_how_far_it_sees(widths, reach):
    """3 + 6 + 12 + 6 + 3 + 1 = 31 voxels by convolutions with two halvings, 67 with three; by pooling as much further
    as a block has, and by growths of 3 again: 37 and 81. What is not a number spreads to all that sees it.
    """
    network, grid = net(widths=widths).eval(), Grid.centred((8, 320))
    data = torch.rand(1, 1, 8, 320)
    farthest = 0
    for at in range(156, 156 + 2 ** (len(widths) - 1)):
        lost = data.clone()
        lost[..., at] = torch.nan
        seen = network(Image(lost, grid), Image(data, grid)).transform.field.isnan().any(2)[0, 0].nonzero()[:, 0]
        farthest = max(farthest, int(seen.max()) - at, at - int(seen.min()))
    assert farthest == reach


def test_its_answer_may_be_a_velocity():
    image = Image(torch.rand(1, 1, 19, 22), Grid.centred((19, 22)))
    assert isinstance(net(transform=Velocity)(image, image).transform, Velocity)
    assert isinstance(net()(image, image).transform, Displacement)


def test_the_regularity_is_that_of_deepreg_up_to_the_factor_that_is_told():
    """Squared slopes, their sum over axes and mean over components, are d times `Diffusion`, for a linear field."""
    grid = Grid.centred((12, 10))
    slopes = torch.tensor([[0.3, -0.2], [0.1, 0.4]])
    field = torch.einsum("ab,bij->aij", slopes, grid.voxels(torch.zeros(())))[None]
    image = Image(torch.rand(1, 1, 12, 10), grid)
    found = Diffusion()(Alignment(Pair(image, image), Displacement(field, grid)))
    theirs = slopes.square().sum() / 2  # over both axes, mean over components
    assert float(2 * found) == pytest.approx(float(theirs), rel=1e-5)
    assert find("residual-unet").supervision.energy == LNCC(9) + 1.0 * Diffusion()


# ---- recipes, and the study


@pytest.mark.parametrize("variant", PREALIGNED)
def test_the_variants_differ_in_their_pre_alignment_alone(variant):
    """And a recipe file knows it: registers of methods of a class, as `Motion.rigid`, are read back."""
    recipe, plain = find(variant, on="visits"), find("residual-unet", on="visits")
    again = from_yaml(to_yaml(recipe), "a recipe")
    assert again.data == recipe.data
    if variant == "residual-unet":
        assert isinstance(recipe.data, PairFolder)
        return
    assert isinstance(again.data, Prealigned)
    assert again.data.register == {"residual-unet-rigid": RIGID, "residual-unet-affine": AFFINE}[variant]
    assert again.data.data == plain.data
    assert replace(recipe, data=plain.data, about=plain.about) == replace(plain, network=recipe.network)
    assert [name for name, _ in again.data.register.linear] == ["rigid", "affine"][: len(again.data.register.linear)]


RINGS = Tori(32, train_subjects=2, validation_subjects=2, test_subjects=8)


def test_networks_of_the_arms_know_their_pre_alignment(tmp_path):
    """Each of the paper's arms learns from data that is aligned as its name says; folders differ."""
    recipe = find("residual-unet", on="growth")
    trial = Trial(tmp_path, "growth", replace(recipe.data, growth=GrowthLaw(visits=(2, 2))))
    units = {name: arm.unit(trial) for name, arm in arms(recipe, BEFORE).items()}
    assert len({unit.path for unit in units.values()}) == len(units)
    assert isinstance(units["NR"].arm, TrainedArm)
    assert isinstance(units["NR"].arm.recipe.data, GrowingBrains)
    for name, register in (("RR", RIGID), ("RAR", AFFINE)):
        assert units[name].arm.recipe.data.register == register
        assert units[name].trial.data.register == register
    assert units["NR, augmented"].arm.recipe.training.augment is not None
    assert units["NR, shallow"].arm.recipe.network.keywords["widths"] == SHALLOW


def test_arms_of_both_sizes_are_shown_voxels_of_their_own_and_measured_on_one_grid(tmp_path):
    experiment = study.tables["sizes"].experiments["growth"]
    trial = Trial(tmp_path, "growth", replace(experiment.data, growth=GrowthLaw(visits=(2, 2))))
    for name, edge in (("NR, fine", 4.5), ("NR, coarse", 6.0), ("RAR, fine", 4.5), ("RAR, coarse", 6.0)):
        unit = experiment.arms[name].unit(trial)
        data, measured = unit.arm.recipe.data, unit.trial.data
        inner, common = (each.data if isinstance(each, Prealigned) else each for each in (data, measured))
        assert (inner.spacing, common.spacing) == (edge, 3.0)
        assert unit.arm.uses(net(3)).spacing == (edge,) * 3
        assert as_data(unit.arm.uses)["spacing"] == [edge] * 3


class Still(nn.Module):
    """A network that moves nothing."""

    def forward(self, fixed: Image, moving: Image) -> Alignment:
        return Alignment(Pair(fixed, moving), Displacement.identity(fixed.grid, fixed.data))


@pytest.mark.parametrize("edge", [1.0, 1.5, 3.0])
def test_dice_on_one_grid_does_not_see_the_grid_of_the_network(edge):
    """Of an identity: exactly."""
    for pair in RINGS.test:
        answer = AtItsSpacing(Trained(Still(), (edge, edge)))(pair.fixed, pair.moving)
        assert Dice()(Alignment(pair, answer.transform)) == Dice()(Alignment(pair, unmoved(*pair.images).transform))


@pytest.mark.slow
def test_visits_are_learned_and_aligned_by_the_commands(pullback, tmp_path, monkeypatch):
    """A run keeps its pre-alignments where it is told, and `register` aligns before as it did, unless it must not."""
    monkeypatch.chdir(tmp_path)
    noise = gaussian(torch.rand(1, 1, 40, 36, generator=torch.Generator().manual_seed(0)), 2.0)
    grid = Grid.centred((28, 24), 2.0)
    for child in range(4):
        for visit, angle in ((2, 0.05), (10, -0.05)):
            turn = torch.tensor([[1.0, -angle - child / 100], [angle + child / 100, 1.0]], dtype=torch.float64)
            image = pull(Image(noise, Grid.centred((40, 36), 2.0)), Affine.about(turn, grid.centre), onto=grid)
            folder = Path(f"bids/sub-{child}/ses-{visit}/anat")
            folder.mkdir(parents=True)
            data = image.data[0, 0].numpy()
            for kind, part in (("T1w", data), ("dseg", (data > data.mean()).astype(np.uint8))):
                nib.save(nib.Nifti1Image(part, np.diag([2.0, 2.0, 1.0, 1.0])), folder / f"sub-{child}_{kind}.nii.gz")
    small = ("network.ndim=2", "network.widths=[2,2]", "training.updates=1", "data.register.initialise=null")
    words = [word for setting in (*small, "data.out=aligned") for word in ("--set", setting)]
    code, out, err = pullback("train", "residual-unet-rigid", "--on", "visits", "--data", "bids", "-o", "run", *words)
    assert code == 0, out + err
    kept = sorted(path.name for path in Path("aligned").iterdir())
    assert all(re.fullmatch(r"\d_2_\d_10-[0-9a-f]{16}\.tfm", name) for name in kept), kept
    one, other = (f"bids/sub-0/ses-{visit}/anat/sub-0_T1w.nii.gz" for visit in (2, 10))
    for start, before in (("auto", True), ("header", False)):
        code, out, err = pullback("register", "-f", one, "-m", other, "--network", "run", "-o", start, "--start", start)
        assert code in (0, 3), out + err
        assert ("before" in json.loads(Path(start, "run.json").read_text())["settings"]) == before
    moved = [read_transform(Path(start) / "fixed_to_moving.h5")(grid.centre[None]) for start in ("auto", "header")]
    assert not torch.allclose(*moved, atol=1e-3)
