"""Locks of folders."""

import errno
import fcntl
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pullback.errors import InputError
from pullback.records.lock import is_locked, locked


def test_another_thread_waits_in_vain_and_the_same_may_enter_again(tmp_path):
    with ThreadPoolExecutor(1) as beside:
        with locked(tmp_path):
            with locked(tmp_path):
                pass
            assert is_locked(tmp_path) or beside.submit(is_locked, tmp_path).result(), "the inner one let it go"
            with pytest.raises(InputError, match="another process"):
                beside.submit(locked(tmp_path).__enter__).result()
        assert not beside.submit(is_locked, tmp_path).result()
    assert not list(tmp_path.iterdir())


def test_another_process_is_kept_out_until_it_ends_however_it_ends(tmp_path):
    code = (
        f"from pullback.records.lock import locked; from pathlib import Path; import time\n"
        f"with locked(Path({str(tmp_path)!r})): print('in', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "in\n"
    with pytest.raises(InputError, match="another process"), locked(tmp_path):
        pass
    other.kill()
    other.wait()
    time.sleep(0.05)
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_and_worked_on(tmp_path, monkeypatch, number):
    def none(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.warns(UserWarning, match="no locks|not supported"), locked(tmp_path / "new"):
        (tmp_path / "new" / "kept").touch()
    assert (tmp_path / "new" / "kept").is_file()
