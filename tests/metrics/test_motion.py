"""Numbers of motion: they are what a map was made of, and framewise displacement is Power's sum."""

import math

import torch

from pullback.metrics.motion import framewise_displacement, motion_numbers
from pullback.numerics.rotation import of_euler
from pullback.space import Affine

CENTRE = torch.tensor([10.0, -20.0, 35.0], dtype=torch.float64)


def maps(turns, shifts) -> torch.Tensor:
    rotations = of_euler(torch.tensor(turns, dtype=torch.float64))
    moved = [CENTRE + torch.tensor(shift, dtype=torch.float64) for shift in shifts]
    return torch.stack([Affine.about(r, CENTRE, to).matrix for r, to in zip(rotations, moved, strict=True)])


def test_numbers_are_those_of_which_the_map_was_made():
    found = motion_numbers(maps([[0.1, -0.2, 0.3]], [[1.0, 2.0, -3.0]]), CENTRE)
    known = {"trans_x": 1.0, "trans_y": 2.0, "trans_z": -3.0, "rot_x": 0.1, "rot_y": -0.2, "rot_z": 0.3}
    assert list(found) == list(known)
    for name, value in known.items():
        assert math.isclose(float(found[name]), value, abs_tol=1e-12), name


def test_framewise_displacement_adds_shifts_and_arcs_of_a_sphere():
    """A turn by 0.02 about x is an arc of 1 mm on a sphere of 50 mm."""
    found = framewise_displacement(
        maps([[0.0, 0, 0], [0.02, 0, 0], [0.02, 0, 0]], [[0.0, 0, 0], [0.0, 0, 0], [0.5, -1, 0]]), CENTRE
    )
    assert math.isnan(float(found[0]))
    torch.testing.assert_close(found[1:], torch.tensor([1.0, 1.5], dtype=torch.float64))


def test_in_the_plane_there_is_one_turn():
    turn = torch.tensor([[math.cos(0.2), -math.sin(0.2)], [math.sin(0.2), math.cos(0.2)]], dtype=torch.float64)
    found = motion_numbers(Affine.about(turn, CENTRE[:2]).matrix[None], CENTRE[:2])
    assert list(found) == ["trans_x", "trans_y", "rot_z"]
    assert math.isclose(float(found["rot_z"]), 0.2)
    assert math.isclose(float(found["trans_x"]), 0.0, abs_tol=1e-12)
