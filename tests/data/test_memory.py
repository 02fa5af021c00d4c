"""What is kept of what was loaded: the latest, within the limit."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from pullback.data import FileCase
from pullback.data.case import LOADED, Subject
from pullback.data.memory import Memory, tensor_bytes
from pullback.data.phantoms.brain import BrainPhantom
from pullback.files import write
from pullback.space import Grid, Image, Labels, Velocity

GRID = Grid.centred((5, 4))


def kilobytes(count: int) -> Image:
    return Image(torch.zeros(1, count, 5, 50, dtype=torch.float32), Grid.centred((5, 50)))


def test_what_was_asked_for_longest_ago_goes_first():
    memory, loads = Memory(limit=3500), []

    def ask(key, count=1):
        return memory.get(key, lambda: loads.append(key) or kilobytes(count))

    first = ask("a")
    ask("b"), ask("c")
    assert ask("a") is first
    assert loads == ["a", "b", "c"]
    ask("d")  # the grids' affines fit beside three kilobytes, a fourth does not
    assert ask("a") is first
    ask("b")
    assert loads == ["a", "b", "c", "d", "b"]
    ask("large", 4)
    ask("large", 4)
    assert loads[-2:] == ["large", "large"], "what is too large is loaded each time"


def test_all_tensors_count_even_those_that_are_computed_later():
    image = Image(torch.zeros(1, 1, 5, 4), GRID, torch.ones(1, 1, 5, 4, dtype=torch.bool))
    velocity = Velocity(torch.zeros(1, 2, 5, 4), GRID)
    subject = Subject(image, Labels(torch.zeros(1, 1, 5, 4, dtype=torch.int64), GRID), velocity)
    before = tensor_bytes(subject)
    assert before == 20 * (4 + 1 + 8 + 2 * 4) + 3 * 9 * 8
    _ = velocity.own_displacement
    assert tensor_bytes(subject) == before + 20 * 2 * 4


def test_a_file_that_was_written_anew_is_read_anew(tmp_path):
    path, case = tmp_path / "a.nii", FileCase("a", tmp_path / "a.nii", as_stored=True)
    image = replace(kilobytes(1), data=torch.arange(250.0).view(1, 1, 5, 50))
    write(image, path)
    before = case.load()
    assert case.load() is before
    write(replace(image, data=image.data + 1), path)  # as many bytes
    assert float(case.load().image.data.min()) == 1


def test_threads_share_one():
    memory = Memory(limit=2500)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: memory.get(n % 5, lambda: kilobytes(1 + n % 5)).data.shape[1], range(200)))
    assert answers == [1 + n % 5 for n in range(200)]


@pytest.mark.slow
def test_files_and_phantoms_share_the_bound(tmp_path):
    assert LOADED.limit == 4 * 2**30
    case = BrainPhantom(spacing=12.0).train.cases[0]
    assert case.load() is BrainPhantom(spacing=12.0).train.cases[0].load()
    assert case in LOADED._kept
    assert FileCase("a", tmp_path / "a.nii") not in LOADED._kept
