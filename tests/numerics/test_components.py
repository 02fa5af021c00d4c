"""Components and their centres are those of scipy and of SimpleITK."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from pullback.numerics.components import component_centres


def blobs(seed: int, share: float = 0.5) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((60, 47))
    return (ndimage.gaussian_filter(noise, 1.5) > np.quantile(ndimage.gaussian_filter(noise, 1.5), share)).astype(
        np.uint8
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_as_scipy(seed, share):
    mask = blobs(seed, share)
    theirs, count = ndimage.label(mask)
    centres, areas = component_centres(torch.from_numpy(mask))
    expected = np.array(ndimage.center_of_mass(mask, theirs, range(1, count + 1)))
    order, ours = np.lexsort(expected.T), np.lexsort(centres.numpy().T)
    assert np.allclose(expected[order], centres.numpy()[ours], atol=1e-9)
    assert np.array_equal(np.bincount(theirs.ravel())[1:][order], areas.numpy()[ours])


def test_as_simpleitk_in_physical_points():
    mask = blobs(7, 0.9)
    image = sitk.GetImageFromArray(mask.T)  # x is our first axis
    image.SetSpacing((0.5, 2.0))
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(sitk.ConnectedComponent(image))
    theirs = np.array([statistics.GetCentroid(label) for label in statistics.GetLabels()])
    ours = component_centres(torch.from_numpy(mask))[0].numpy() * (0.5, 2.0)
    assert np.allclose(theirs[np.lexsort(theirs.T)], ours[np.lexsort(ours.T)], atol=1e-9)


def test_labels_that_touch_stay_apart():
    labels = torch.zeros(6, 8, dtype=torch.int64)
    labels[1:4, 1:4], labels[1:4, 4:7] = 3, 9
    centres, areas = component_centres(labels)
    assert centres.tolist() == [[2, 2], [2, 5]]
    assert areas.tolist() == [9, 9]


def test_nothing():
    centres, areas = component_centres(torch.zeros(5, 5, dtype=torch.uint8))
    assert centres.shape == (0, 2)
    assert not len(areas)


def test_corners_do_not_join():
    labels = torch.eye(3, dtype=torch.uint8)
    assert len(component_centres(labels)[0]) == 3
