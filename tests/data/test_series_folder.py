"""A folder of series: ends, order, people, and what is refused."""

import numpy as np
import pytest
import torch

from pullback.data import SeriesFolder
from pullback.errors import InputError
from pullback.files import write
from pullback.space import Grid, Image, Series


@pytest.fixture
def folder(tmp_path, oblique):
    """Six people's series of five frames, whose brightest voxel wanders by one each time, and a second visit."""
    for number in range(6):
        grid = oblique((9, 8, 7), number)
        data = torch.zeros(5, 1, *grid.shape)
        data[:, 0, 0, 0, 0] = 1.0
        for t in range(5):
            data[t, 0, 1 + t, 3, 3] = 2.0
        for visit in (1, 2) if number == 0 else (1,):
            series = Series.of(Image(data, grid), torch.arange(5).double() * 0.4)
            write(series, tmp_path / f"sub-{number}_ses-{visit}_bold.nii.gz")
    return tmp_path


def brightest(image):
    return image.grid.to_world(
        torch.tensor(np.unravel_index(int(image.data.argmax()), image.grid.shape)).double()[None, :, None]
    )


def test_ends_and_what_lies_between_in_order(folder):
    forth, back = (SeriesFolder(str(folder), first=f, last=n).cases[0].load() for f, n in ((0, -1), (-1, 0)))
    assert len(forth.between) == 3
    there = [brightest(image) for image in (forth.moving, *forth.between, forth.fixed)]
    here = [brightest(image) for image in (back.fixed, *reversed([*back.between]), back.moving)]
    steps = torch.stack(there).diff(dim=0)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps), atol=1e-4, rtol=0)
    assert float(steps.norm(dim=2).min()) > 0.5
    torch.testing.assert_close(torch.stack(there), torch.stack(here))
    assert forth.between.times.tolist() == pytest.approx([0.4, 0.8, 1.2], rel=1e-6)
    assert back.between.times.tolist() == pytest.approx([1.2, 0.8, 0.4], rel=1e-6)
    part = SeriesFolder(str(folder), first=1, last=2).cases[0].load()
    assert part.between is None
    torch.testing.assert_close(brightest(part.fixed), there[2])


def test_people_are_in_one_split_each(folder):
    data = SeriesFolder(str(folder), validation_split=("1",), test_split=("0",))
    assert len(data.cases) == 7
    assert (data.test.names, len(data.test)) == (("0",), 2)
    assert data.validation.names == ("1",)
    assert data.train.names == ("2", "3", "4", "5")
    drawn = SeriesFolder(str(folder))
    assert not {*drawn.train.names} & {*drawn.test.names, *drawn.validation.names}


def test_what_is_no_series_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"no folder given.*--data DIR"):
        _ = SeriesFolder().train
    with pytest.raises(InputError, match="nothing is called"):
        _ = SeriesFolder(str(folder), images="*.mha").train
    for first, last in ((0, 5), (2, 2), (1, -4), (-6, 0)):
        with pytest.raises(InputError, match="5 frames, of which first"):
            SeriesFolder(str(folder), first=first, last=last).cases[0].load()
    write(Image(torch.rand(1, 1, 4, 4, 4), Grid.centred((4, 4, 4))), folder / "one.nii.gz")
    with pytest.raises(InputError, match=r"one\.nii\.gz: a 4-D series expected"):
        _ = SeriesFolder(str(folder)).train
