"""Workers: one process for many tasks, another one where it dies, and an end where it dies always."""

from functools import partial

import pytest

from pullback.errors import InputError
from pullback.records.workers import TRIES, Local, Ray

WORKER = partial(partial, eval)
OS = "__import__('os')"
DIE = f"{OS}.kill({OS}.getpid(), 9)"


def once(flag: str) -> str:
    """A task that kills its process the first time, and answers with 7 the second."""
    return f"{DIE} if not {OS}.path.exists({flag!r}) and not {OS}.mkdir({flag!r}) else 7"


def test_one_process_does_all_tasks_and_another_goes_on_where_it_is_killed(tmp_path):
    worker = Local().worker(WORKER)
    first = worker(f"{OS}.getpid()")
    assert worker(f"{OS}.getpid()") == first
    assert worker(once(str(tmp_path / "killed"))) == 7
    assert worker(f"{OS}.getpid()") != first
    with pytest.raises(InputError, match="ZeroDivisionError"):
        worker("1 / 0")
    assert worker("1 + 1") == 2
    worker.close()


def test_what_always_dies_is_given_up(tmp_path):
    worker, tries = Local().worker(WORKER), tmp_path / "tries"
    with pytest.raises(InputError, match=f"died {TRIES} times"):
        worker(f"{OS}.system('echo x >> {tries}') or {DIE}")
    assert len(tries.read_text().split()) == TRIES
    assert worker("1 + 1") == 2
    worker.close()


@pytest.mark.nightly
def test_an_actor_of_a_cluster_does_the_same(tmp_path):
    ray = pytest.importorskip("ray")
    worker = Ray().worker(WORKER)
    try:
        assert worker("6 * 7") == 42
        assert worker(once(str(tmp_path / "killed"))) == 7
        with pytest.raises(InputError, match="ZeroDivisionError"):
            worker("1 / 0")
        with pytest.raises(InputError, match=f"died {TRIES} times"):
            worker(DIE)
        worker.close()
    finally:
        ray.shutdown()
