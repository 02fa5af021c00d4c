"""What lies on grids: validation, and cutting about the middle."""

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from pullback.space import Affine, Grid, Image, Labels, Points, canonical, centred, pull

GRID = Grid.centred((4, 5, 6))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Image(torch.zeros(4, 5, 6), GRID), "data must be"),
        (lambda: Image(torch.zeros(1, 1, 4, 5, 7), GRID), "data must be"),
        (lambda: Image(torch.zeros(1, 1, 4, 5, 6), GRID, torch.ones(1, 1, 4, 5, 5, dtype=torch.bool)), "mask"),
        (lambda: Labels(torch.zeros(1, 1, 4, 5, 6), GRID), "integers expected"),
        (lambda: Labels(torch.zeros(1, 1, 4, 5, dtype=torch.int64), GRID), "data must be"),
        (lambda: Points(torch.zeros(5, 3)), "expected"),
        (lambda: Points(torch.zeros(1, 5, 4)), "expected"),
    ],
)
def test_what_does_not_fit_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_centred_keeps_the_middle_and_lays_it_at_the_origin(oblique):
    grid = oblique((5, 8, 6), seed=1)
    data = torch.arange(5 * 8 * 6.0).view(1, 1, 5, 8, 6) + 1
    mask = data.int() % 2 == 0
    out = centred(Image(data, grid, mask), (7, 4, 6))
    assert out.data.shape == (1, 1, 7, 4, 6)
    assert torch.equal(out.data[:, :, 1:6], data[:, :, :, 2:6])
    assert torch.equal(out.mask[:, :, 1:6], mask[:, :, :, 2:6])
    assert not out.data[:, :, [0, 6]].any()
    assert not out.mask[:, :, [0, 6]].any()
    torch.testing.assert_close(out.grid.centre, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(out.grid.spacing, grid.spacing)


def test_centred_labels_stay_labels():
    labels = Labels(torch.ones(1, 1, 4, 5, 6, dtype=torch.uint8), GRID)
    out = centred(labels, (2, 7, 6))
    assert isinstance(out, Labels)
    assert out.data.dtype == torch.uint8
    assert int(out.data.sum()) == 2 * 5 * 6


def test_centred_wants_one_number_per_axis():
    with pytest.raises(ValueError, match="3 axes of 2 voxels or more expected"):
        centred(Labels(torch.ones(1, 1, 4, 5, 6, dtype=torch.uint8), GRID), (2, 7))


@given(st.sampled_from([(7, 8), (6, 5, 7)]), st.integers(0, 10**6))
def test_canonical_storage_changes_nothing_in_the_world(oblique, shape, seed):
    grid, third = oblique(shape, seed), oblique(tuple(n + 2 for n in shape), seed + 1)
    generator = torch.Generator().manual_seed(seed)
    data = torch.rand(2, 2, *shape, dtype=torch.float64, generator=generator)
    image, labels = Image(data, grid, data[:, :1] > 0.3), Labels((5 * data[:, :1]).long(), grid)
    still = Affine.identity(len(shape))
    before, after = (pull(thing, still, third) for thing in (image, canonical(image)))
    torch.testing.assert_close(after.data, before.data, rtol=0, atol=1e-12)
    assert before.data.any()
    assert torch.equal(after.mask, before.mask)
    assert torch.equal(pull(canonical(labels), still, third).data, pull(labels, still, third).data)
    again = canonical(canonical(image))
    assert torch.equal(again.data, canonical(image).data)
    assert torch.equal(again.grid.affine, canonical(image).grid.affine)


@given(st.integers(0, 10**6))
def test_canonical_as_nibabel(seed):
    """On grids that lean up to 20° or so from any of the 48 ways to store a volume."""
    rng = np.random.default_rng(seed)
    linear = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
    linear = (linear + rng.uniform(-0.2, 0.2, (3, 3))) * rng.uniform(0.7, 2, 3)
    affine = nib.affines.from_matvec(linear, rng.uniform(-9, 9, 3))
    data = rng.random((4, 5, 6))
    reference = nib.as_closest_canonical(nib.Nifti1Image(data, affine))
    out = canonical(Image(torch.from_numpy(data)[None, None], Grid((4, 5, 6), torch.from_numpy(affine))))
    np.testing.assert_array_equal(out.data[0, 0].numpy(), np.asarray(reference.dataobj))
    np.testing.assert_allclose(out.grid.affine.numpy(), reference.affine, atol=1e-12)
    assert out.data.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int16, torch.bool])
def test_intensities_are_of_a_type_that_counts_voxels(dtype):
    with pytest.raises(ValueError, match="float32 or float64 expected"):
        Image(torch.ones(1, 1, 4, 5, dtype=dtype), Grid.centred((4, 5)))
