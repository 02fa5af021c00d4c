"""What `pb.train` leaves, and what a run that goes on sees of its files."""

import gzip
import itertools
import os
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import pullback as pb
from pullback.errors import InputError
from pullback.files import read_image, write
from pullback.numerics.random import make_generator
from pullback.records.fingerprint import fingerprint
from pullback.study.evaluate import ONE, TWO, by_people, evaluate, unmoved

NETWORK = partial(pb.VoxelMorph, ndim=2, encoder=(4, 4), decoder=(4, 4, 4, 4))
TRAINING = pb.Training(updates=4, lr=1e-3, validate_every=2, save_every=2)


@pytest.fixture
def data(tmp_path):
    """Ten subjects of two labels, as files."""
    for number in range(10):
        draws, grid = make_generator(number), pb.Grid.centred((20, 24))
        image = torch.rand(1, 1, *grid.shape, generator=draws)
        write(pb.Image(image, grid), tmp_path / f"images/s{number}.nii.gz")
        write(pb.Labels((image > 0.5).long(), grid), tmp_path / f"labels/s{number}.nii.gz")
    return pb.PairFolder(str(tmp_path), images="images/*.nii.gz", labels="labels/*.nii.gz")


def trained(data, out, **more):
    with pb.seeded(1):
        network = NETWORK()
    return pb.train(network, data.train, pb.Unsupervised(), replace(TRAINING, **more), data.validation, out=out)


def test_what_it_leaves_is_a_run(data, tmp_path, pullback):
    """`load_run`, `evaluate` and `register --network` read it, and find the network that was trained."""
    network = trained(data, tmp_path / "run")
    recipe, register = pb.load_run(tmp_path / "run")
    pair = next(iter(data.test))
    assert torch.equal(register.network(pair.fixed, pair.moving).transform.field, network(*pair.images).transform.field)
    assert recipe.training == TRAINING
    assert recipe.network.keywords["decoder"] == (4, 4, 4, 4)
    mine = evaluate({"network": network}, data.test, recipe.evaluates)["network"]
    arguments = ["evaluate", str(tmp_path / "run"), "--runs-only", "-o", str(tmp_path / "measured")]
    code, out, _ = pullback(*arguments)
    assert code == 0
    assert f"{np.mean([row['dice'] for row in mine]):.3f}" in out
    images = [str(tmp_path / f"images/s{n}.nii.gz") for n in range(2)]
    arguments = ["register", "-f", images[0], "-m", images[1], "--network", str(tmp_path / "run")]
    assert pullback(*arguments, "-o", str(tmp_path / "registered"))[0] in (0, 3)
    assert (tmp_path / "registered" / "moved.nii.gz").is_file()


def test_a_run_goes_on_in_python_and_by_command(data, tmp_path, pullback):
    """Each to the bit of a run that was not stopped."""
    whole = trained(data, tmp_path / "whole", updates=8, save_every=4)
    trained(data, tmp_path / "run", save_every=4)
    longer = replace(TRAINING, updates=8, save_every=4)
    with pb.seeded(7):
        other = NETWORK()
    with pytest.raises(InputError, match="resume"):
        pb.train(other, data.train, pb.Unsupervised(), longer, data.validation, tmp_path / "run")
    again = pb.train(other, data.train, pb.Unsupervised(), longer, data.validation, tmp_path / "run", resume=True)
    for mine, theirs in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    arguments = ["train", str(tmp_path / "run" / "recipe.yaml"), "--resume", "-o", str(tmp_path / "run")]
    assert pullback(*arguments, "--set", "training.updates=9")[0] == 0
    assert "9," in (tmp_path / "run" / "training.csv").read_text()


def test_without_an_evaluation_the_last_weights_are_the_runs(data, tmp_path):
    network = pb.train(NETWORK(), data.train, pb.Unsupervised(), TRAINING, out=tmp_path / "run")
    register = pb.load_run(tmp_path / "run")[1]
    for mine, theirs in zip(network.parameters(), register.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_of_parts_that_cannot_be_named_it_leaves_weights_alone(data, tmp_path):
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = NETWORK()

        def forward(self, fixed, moving):
            return self.network(fixed, moving)

    pb.train(Mine(), data.train, pb.Unsupervised(), TRAINING, data.validation, tmp_path / "mine")
    pb.train(NETWORK(), replace(data.train, of=None), pb.Unsupervised(), TRAINING, data.validation, tmp_path / "parts")
    for name in ("mine", "parts"):
        assert (tmp_path / name / "best.safetensors").is_file()
        with pytest.raises(InputError, match=r"recipe\.yaml"):
            pb.load_run(tmp_path / name)


def test_a_run_does_not_go_on_with_images_that_were_written_anew(data, tmp_path, pullback):
    """Of the same name, size and time; a copy of the same images elsewhere is no change."""
    trained(data, tmp_path / "run")
    path = tmp_path / "labels" / "s3.nii.gz"
    before, stored = path.stat(), read_image(path)
    write(pb.Labels(stored.data.long().flip(2), stored.grid), path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = ["train", str(tmp_path / "run" / "recipe.yaml"), "--resume", "-o", str(tmp_path / "run")]
    code, _, said = pullback(*again, "--set", "training.updates=6")
    assert code == 1
    assert "s3" in said
    write(pb.Labels(stored.data.long(), stored.grid), path)
    assert pullback(*again, "--set", "training.updates=6")[0] == 0


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_a_fingerprint_is_of_the_content(tmp_path, suffix):
    """Any byte changes it, in the middle of a large file too; name and time do not."""
    content = bytearray(os.urandom(2**18))
    wrap = gzip.compress if suffix == "nii.gz" else bytes
    paths = [tmp_path / f"{name}.{suffix}" for name in ("one", "same", "other")]
    paths[0].write_bytes(wrap(bytes(content), **({"mtime": 0} if suffix == "nii.gz" else {})))
    paths[1].write_bytes(paths[0].read_bytes())
    content[2**17] ^= 1
    paths[2].write_bytes(wrap(bytes(content), **({"mtime": 0} if suffix == "nii.gz" else {})))
    one, same, other = map(fingerprint, paths)
    assert one == same != other
    assert fingerprint(tmp_path / "none") == ""


@pytest.mark.parametrize("method", ["voxelmorph", "transmorph"])
def test_a_network_knows_how_it_was_made(method):
    kind = {"voxelmorph": pb.VoxelMorph, "transmorph": pb.TransMorph}[method]
    again = kind(2).made()
    assert type(again) is kind
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in kind(2).named_parameters()}


def test_pairs_of_one_person_are_told_from_pairs_of_two(data, tmp_path):
    """In every row, and in tables of their own where both kinds are measured."""
    for number in range(4):
        for kind, visit in itertools.product(("images", "labels"), "ab"):
            source = tmp_path / f"{kind}/s{2 * number + (visit == 'b')}.nii.gz"
            target = tmp_path / f"people/sub-{number}/ses-{visit}/{kind}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    people = pb.PairFolder(
        str(tmp_path / "people"),
        images="sub-{subject}/ses-{visit}/images.nii.gz",
        labels="sub-{subject}/ses-{visit}/labels.nii.gz",
        test_split=1.0,
    )
    mixed = replace(people.test, pairs=[*itertools.permutations(people.cases, 2)])
    results = evaluate({"unmoved": unmoved}, mixed)
    whose = [row["of"] for row in results["unmoved"]]
    assert (len(whose), whose.count(ONE)) == (8 * 7, 8)
    apart = by_people(results)
    assert {kind: len(rows["unmoved"]) for kind, rows in apart.items()} == {ONE: 8, TWO: 48}
    assert by_people(evaluate({"unmoved": unmoved}, people.test)) == {}
