"""Small worlds for the tests. What is random comes from a seed; what is smooth is a formula that tests may evaluate."""

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import settings
from torch import Tensor

from pullback import cli
from pullback.space import Grid

settings.register_profile("repeatable", max_examples=10, derandomize=True, deadline=None, database=None)
settings.register_profile("nightly", max_examples=200, deadline=None, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What asks for the folder `shared` wants real data."""
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Each test draws the same, alone or after whichever others."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and fixtures, which lie beside the repository and never in it."""
    path = Path(__file__).resolve().parents[1].parent / "shared"
    if not path.is_dir():
        pytest.skip("no real data: the folder `shared` is missing beside the repository")
    return path


@pytest.fixture
def pullback(monkeypatch, capfd) -> Callable[..., tuple[int, str, str]]:
    """A command line, run in this process: exit code, stdout and stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pullback", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capfd.readouterr()

    return call


@pytest.fixture(scope="session")
def oblique() -> Callable[..., Grid]:
    """Grids of any orientation, handedness and spacing about the world's origin."""

    def make(shape: tuple[int, ...], seed: int, low: float = 0.7, high: float = 1.6) -> Grid:
        rng, d = np.random.default_rng(seed), len(shape)
        turn = np.linalg.qr(rng.normal(size=(d, d)))[0]  # of either determinant
        affine = np.eye(d + 1)
        affine[:d, :d] = turn * rng.uniform(low, high, d)
        affine[:d, d] = rng.uniform(-1, 1, d) - affine[:d, :d] @ ((np.array(shape) - 1) / 2)
        return Grid(tuple(shape), torch.from_numpy(affine))

    return make


@pytest.fixture(scope="session")
def waves() -> Callable[..., Callable[[Tensor], Tensor]]:
    """A sum of plane waves, values within -1 … 1, as a function of `(B, d, …)`; `shortest` is the least wavelength."""

    def make(ndim: int, seed: int, shortest: float, count: int = 4) -> Callable[[Tensor], Tensor]:
        rng = np.random.default_rng(seed)
        direction = rng.normal(size=(count, ndim))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        k = torch.from_numpy(direction * (2 * math.pi / shortest) * rng.uniform(0.4, 1, (count, 1)))
        phase = torch.from_numpy(rng.uniform(0, 2 * math.pi, count))

        def value(where: Tensor) -> Tensor:
            angle = torch.einsum("kd,bd...->bk...", k.to(where), where)
            angle = angle + phase.to(where).view(1, -1, *[1] * (where.ndim - 2))
            return angle.cos().mean(1, keepdim=True)

        return value

    return make


@pytest.fixture(scope="session")
def smooth_field(waves) -> Callable[..., Tensor]:
    """A displacement `(1, d, *shape)` in voxels, float64, 0 at the border (`fade`), at most `amplitude`."""

    def make(shape: tuple[int, ...], seed: int, amplitude: float, shortest: float = 14, fade: bool = True) -> Tensor:
        axes = [torch.arange(n, dtype=torch.float64) for n in shape]
        where = torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]
        field = torch.cat([waves(len(shape), 100 * seed + c, shortest)(where) for c in range(len(shape))], 1)
        if fade:
            for axis, n in enumerate(shape):
                field = field * (math.pi * where[:, axis : axis + 1] / (n - 1)).sin()
        return amplitude * field / field.abs().max()

    return make


@pytest.fixture(scope="session")
def to_sitk() -> Callable[..., sitk.Image]:
    """An ITK image of an array `(*shape)`, or of vectors `(*shape, d)`, that lies where a RAS affine says."""

    def make(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
        affine = np.asarray(affine)
        d = affine.shape[0] - 1
        lps = np.diag([-1.0, -1.0, 1.0][:d]) @ affine[:d]
        vector = array.ndim == d + 1
        order = (*reversed(range(d)), d) if vector else tuple(reversed(range(d)))
        image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(order)), isVector=vector)
        spacing = np.linalg.norm(lps[:, :d], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(lps[:, d].tolist())
        image.SetDirection((lps[:, :d] / spacing).ravel().tolist())
        return image

    return make


@pytest.fixture(scope="session")
def from_sitk() -> Callable[[sitk.Image], np.ndarray]:
    """The voxels of a scalar ITK image, axes i, j, k."""
    return lambda image: sitk.GetArrayFromImage(image).T
