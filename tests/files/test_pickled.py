"""Arrays out of pickles: what Python would make of them, and nothing that would run."""

import os
import pickle
import random

import numpy as np
import pytest

from pullback.errors import InputError
from pullback.files.images.pickled import read_arrays

RNG = np.random.default_rng(0)
FLOATS = RNG.random((4, 5, 6)).astype("f4")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["u1", "i2", ">i2", "i8", "f8", "?"])
def test_as_python_has_them(tmp_path, protocol, kind):
    labels, path = RNG.integers(0, 9, (4, 5, 6)).astype(kind), tmp_path / "x.pkl"
    several = [RNG.random((2, n)) for n in range(1, 150)]  # so many that Python counts them in more than a byte
    for stored in (
        (FLOATS, labels),
        [labels, FLOATS],
        (FLOATS, FLOATS),
        (np.asfortranarray(labels), FLOATS[::2]),
        several,
    ):
        path.write_bytes(pickle.dumps(stored, protocol))
        found = read_arrays(path)
        assert len(found) == len(stored)
        for one, other in zip(found, stored, strict=True):
            assert one.dtype == other.dtype.newbyteorder("=") or one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    path.write_bytes(pickle.dumps(labels, protocol))
    np.testing.assert_array_equal(read_arrays(path)[0], labels)


class Runs:
    def __init__(self, what, *arguments):
        self.what, self.arguments = what, arguments

    def __reduce__(self):
        return self.what, self.arguments


@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_in_them_runs(tmp_path, protocol):
    path, mark = tmp_path / "x.pkl", tmp_path / "ran"
    for what in (Runs(os.mkdir, str(mark)), Runs(np.save, str(mark), FLOATS), Runs(np.fromfile, str(path))):
        for stored in (what, (FLOATS, what), [what]):
            path.write_bytes(pickle.dumps(stored, protocol))
            with pytest.raises(
                InputError, match=r"x\.pkl: not a pickle of NumPy's arrays alone \(it holds (posix|numpy)"
            ):
                read_arrays(path)
            assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        ({"image": FLOATS}, "it holds dict"),
        ((FLOATS, "labels"), "it holds str"),
        (np.array([None, 1]), "it holds arrays of object"),
        (random.Random(0), "it holds random.Random"),
    ],
)
def test_what_is_no_array_is_named(tmp_path, stored, reason):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(stored))
    with pytest.raises(InputError, match=reason):
        read_arrays(path)


def test_a_file_that_is_cut_short_or_none(tmp_path):
    path, whole = tmp_path / "x.pkl", pickle.dumps((FLOATS, FLOATS), 4)
    for stored in (b"", b"hello", whole[:-1], *(whole[:n] for n in range(1, len(whole), 37)), FLOATS.tobytes()):
        path.write_bytes(stored)
        with pytest.raises(InputError, match=r"x\.pkl: not a pickle"):
            read_arrays(path)
    with pytest.raises(InputError, match="no such file"):
        read_arrays(tmp_path / "y.pkl")
