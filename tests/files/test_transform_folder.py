"""Folders of transforms: what was written is read, in the order of the numbers, when it is asked for."""

import pytest
import torch

from pullback.errors import InputError
from pullback.files import read_transforms, write_transforms
from pullback.space import Affine, BSpline, Displacement, Grid

GRID = Grid.centred((6, 5), 2.0)


def shifts(count):
    for n in range(count):
        yield Displacement(torch.full((1, 2, *GRID.shape), float(n)), GRID)


def test_they_come_back_in_the_order_of_their_numbers(tmp_path):
    written = write_transforms(tmp_path / "samples", shifts(12), [f"sample_{n}" for n in range(12)])
    assert [path.name for path in written] == [f"sample_{n}.h5" for n in range(12)]
    known = read_transforms(tmp_path / "samples")
    assert list(known) == [f"sample_{n}" for n in range(12)]
    assert len(known) == 12
    for n, transform in enumerate(known.values()):
        torch.testing.assert_close(transform.displacement(GRID), torch.full((1, 2, *GRID.shape), float(n)))


def test_what_a_file_cannot_hold_is_sampled_on_the_fixed_grid(tmp_path):
    draws = torch.Generator().manual_seed(0)
    bent = BSpline(torch.randn(1, 2, *GRID.shape, generator=draws), GRID)
    write_transforms(tmp_path, [bent, Affine.identity(2)], ["bent", "still"], on=GRID)
    known = read_transforms(tmp_path)
    torch.testing.assert_close(known["bent"].displacement(GRID), bent.displacement(GRID), atol=1e-5, rtol=0)
    assert known["still"].as_affine is not None


def test_files_that_are_not_asked_for_are_not_read(tmp_path):
    write_transforms(tmp_path, shifts(2), ["one", "two"])
    (tmp_path / "two.h5").write_text("broken")
    (tmp_path / ".hidden.h5").write_text("hidden")
    (tmp_path / "notes.md").write_text("notes")
    known = read_transforms(tmp_path)
    assert list(known) == ["one", "two"]
    assert known["one"].ndim == 2
    with pytest.raises(InputError, match=r"two\.h5"):
        _ = known["two"]


@pytest.mark.parametrize(("count", "names"), [(1, ["a", "b"]), (3, ["a", "b"]), (2, ["a", "a"]), (1, ["a/b"])])
def test_each_has_one_name(tmp_path, count, names):
    with pytest.raises(InputError, match="expected"):
        write_transforms(tmp_path, shifts(count), names)


def test_a_folder_without_transforms_is_refused(tmp_path):
    with pytest.raises(InputError, match="no transforms in it"):
        read_transforms(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_transforms(tmp_path / "absent")
    write_transforms(tmp_path, shifts(1), ["a"])
    (tmp_path / "a.tfm").write_text("")
    with pytest.raises(InputError, match="one name"):
        read_transforms(tmp_path)
