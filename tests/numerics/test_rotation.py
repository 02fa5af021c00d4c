"""Random rotations against the uniform measure of the rotation group, and scipy.spatial."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from pullback.numerics.random import make_generator
from pullback.numerics.rotation import (
    angles_between,
    linear_of,
    nearby,
    of_euler,
    of_four,
    of_quaternion,
    of_six,
    of_vector,
    planar,
    to_euler,
    to_quaternion,
    uniform,
)


@pytest.mark.parametrize("ndim", [2, 3])
def test_rotations_are_uniform(ndim):
    """For the uniform measure the mean matrix is 0 and the mean of each squared entry 1/d."""
    turns = uniform(ndim, 20_000, make_generator(3))
    torch.testing.assert_close(turns @ turns.mT, torch.eye(ndim, dtype=torch.float64).expand_as(turns))
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(20_000, dtype=torch.float64))
    assert float(turns.mean(0).abs().max()) < 0.03
    torch.testing.assert_close(turns.square().mean(0), torch.full((ndim, ndim), 1 / ndim).double(), atol=0.01, rtol=0)


def test_angles_of_uniform_rotations_are_distributed_as_they_should():
    """In 3-D the share of rotations smaller than ω is (ω − sin ω) / π."""
    angles = torch.deg2rad(angles_between(uniform(3, 20_000, make_generator(4)), torch.eye(3, dtype=torch.float64)))
    for omega in (0.5, 1.0, 2.0, 3.0):
        share = (omega - np.sin(omega)) / np.pi
        assert float((angles < omega).double().mean()) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("ndim", [2, 3])
def test_near_rotations_are_near(ndim):
    start = uniform(ndim, 3, make_generator(5))
    turns = nearby(start, 300, 10.0, make_generator(6))
    angles = angles_between(turns, start[torch.arange(300) % 3])
    assert float(angles.max()) < {2: 10.0, 3: 10 * 3**0.5 + 0.5}[ndim]
    assert float(angles.max()) > 9, "the steps reach as far as they may"
    torch.testing.assert_close(turns @ turns.mT, torch.eye(ndim, dtype=torch.float64).expand_as(turns))


def test_angles_as_scipy():
    one, two = (uniform(3, 50, make_generator(s)) for s in (7, 8))
    expected = (Rotation.from_matrix(one.numpy()).inv() * Rotation.from_matrix(two.numpy())).magnitude()
    np.testing.assert_allclose(angles_between(one, two).numpy(), np.rad2deg(expected), atol=1e-5)


FORMS = {of_vector: 3, of_euler: 3, of_six: 6, of_quaternion: 4, of_four: 4}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_any_numbers_make_a_rotation(form):
    numbers = 2 * torch.randn(50, FORMS[form], generator=make_generator(1), dtype=torch.float64)
    turns = form(numbers)
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3, dtype=torch.float64).expand_as(turns))
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(50, dtype=torch.float64))
    assert torch.autograd.gradcheck(form, numbers[:3].requires_grad_())


def test_forms_as_scipy():
    numbers = torch.randn(20, 3, generator=make_generator(2), dtype=torch.float64)
    quaternions = torch.randn(20, 4, generator=make_generator(3), dtype=torch.float64)
    for found, expected in (
        (of_vector(numbers), Rotation.from_rotvec(numbers.numpy())),
        (of_euler(numbers), Rotation.from_euler("xyz", numbers.numpy())),
        (of_quaternion(quaternions), Rotation.from_quat(quaternions.numpy()[:, [1, 2, 3, 0]])),
    ):
        np.testing.assert_allclose(found.numpy(), expected.as_matrix(), atol=1e-12)


def test_nothing_is_the_identity_and_an_angle_is_a_turn_of_the_plane():
    for form in (of_vector, of_euler, of_six, of_four):
        torch.testing.assert_close(form(torch.zeros(2, FORMS[form])), torch.eye(3).expand(2, 3, 3))
    angle = torch.tensor([[0.3], [-2.0]])
    for form in (of_vector, of_euler):
        torch.testing.assert_close(form(angle), planar(angle[:, 0]))


def test_six_numbers_are_the_columns_that_a_rotation_begins_with():
    turns = uniform(3, 20, make_generator(4))
    columns = (turns - torch.eye(3).double())[:, :, :2].mT.reshape(20, 6)
    torch.testing.assert_close(of_six(columns), turns)
    torch.testing.assert_close(of_six(columns + 2 * (turns[:, :, :2].mT.reshape(20, 6))), turns, msg="of any length")


def test_angles_and_quaternions_of_rotations_as_scipy():
    """Also of half turns, of which all but one part of a quaternion are 0."""
    half = torch.stack([torch.diag(torch.tensor(signs)) for signs in ([1.0, -1, -1], [-1.0, 1, -1], [-1.0, -1, 1])])
    turns = torch.cat([uniform(3, 50, make_generator(9)), torch.eye(3)[None].double(), half.double()])
    known = Rotation.from_matrix(turns.numpy())
    np.testing.assert_allclose(to_euler(turns[:51]).numpy(), known[:51].as_euler("xyz"), atol=1e-12)
    found = to_quaternion(turns)
    assert (found[:, 0] >= 0).all()
    expected = known.as_quat(canonical=True)[:51, [3, 0, 1, 2]]
    np.testing.assert_allclose(found[:51].numpy(), expected, atol=1e-12)
    torch.testing.assert_close(of_quaternion(found), turns, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(
        lambda v: to_quaternion(of_vector(v)), torch.tensor([[3.0, 0.5, 0.2]]).double().requires_grad_()
    )


def test_parameters_come_back_from_their_rotations():
    draws = 2 * torch.rand(50, 3, generator=make_generator(10), dtype=torch.float64) - 1
    angles = draws * torch.tensor([3.1, 1.5, 3.1])
    torch.testing.assert_close(to_euler(of_euler(angles)), angles)
    torch.testing.assert_close(to_euler(of_euler(angles[:, :1])), angles[:, :1])
    quaternion = torch.randn(50, 4, generator=make_generator(11), dtype=torch.float64)
    quaternion = quaternion * quaternion[:, :1].sign() / quaternion.norm(dim=1, keepdim=True)
    torch.testing.assert_close(to_quaternion(of_quaternion(quaternion)), quaternion)


@pytest.mark.parametrize("ndim", [2, 3])
def test_linear_maps_of_numbers_keep_orientation_and_reach_rotations(ndim):
    numbers = torch.randn(20, ndim**2, generator=make_generator(12), dtype=torch.float64)
    trace = numbers.view(-1, ndim, ndim).diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(torch.linalg.det(linear_of(numbers)), trace.exp())
    turn = torch.zeros(ndim, ndim).double()
    turn[0, 1], turn[1, 0] = -0.3, 0.3
    expected = torch.eye(ndim).double()
    expected[:2, :2] = planar(torch.tensor([0.3]).double())[0]
    torch.testing.assert_close(linear_of(turn.view(1, -1))[0], expected)
