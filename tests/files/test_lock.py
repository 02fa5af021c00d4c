"""One process at a time, and no trace of one that left nothing."""

import fcntl
from concurrent.futures import ThreadPoolExecutor

import pytest

from pullback.errors import InputError
from pullback.records.lock import locked


def test_an_empty_folder_goes_and_a_full_one_stays(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a" / "b"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "c").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["c"]
    (tmp_path / "mine").mkdir()
    with locked(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir(), "it was there before"


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"file.*cannot write there.*-o"), locked(tmp_path / "file"):
        pass


@pytest.mark.parametrize("left", [True, False], ids=["the folder stays", "the folder goes"])
def test_who_comes_while_another_leaves_is_alone_too(tmp_path, monkeypatch, left):
    """The first one takes its lock away after the second has opened that file, and before it has locked it."""
    folder, lock, first = tmp_path / "run", fcntl.flock, locked(tmp_path / "run")
    with ThreadPoolExecutor(1) as beside:  # a thread of its own locks as a process of its own does
        beside.submit(first.__enter__).result()
        if left:
            (folder / "weights").touch()

        def late(*how):
            monkeypatch.setattr(fcntl, "flock", lock)
            beside.submit(first.__exit__, None, None, None).result()
            return lock(*how)

        monkeypatch.setattr(fcntl, "flock", late)
        with locked(folder), pytest.raises(InputError, match="another process is at work there"):
            beside.submit(locked(folder).__enter__).result()
