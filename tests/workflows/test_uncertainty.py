"""The commands uncertainty and dose: what they write is what the method says, and doses add up."""

import json

import pytest
import torch

from pullback.data.phantoms.dose import STRUCTURES, TreatedChest
from pullback.errors import InputError
from pullback.files import read_image, read_scalar, read_transform, read_transforms, write, write_image, write_transform
from pullback.methods.pair.posterior import Posterior
from pullback.metrics.calibration import deviation_maps
from pullback.metrics.dose import accumulated, dvh
from pullback.numerics.random import make_generator
from pullback.space import Displacement, Image, mean_and_deviation
from pullback.study.evaluate import unmoved
from pullback.workflows.dose import DoseHow, dose_files
from pullback.workflows.inputs import ImageFiles
from pullback.workflows.posterior_folder import read_posterior
from pullback.workflows.uncertainty import UncertaintyHow, uncertainty_files

CHEST = TreatedChest((36, 30), spacing=8.0, motion=6.0)
QUICK = ("--set", "posterior.solver.steps=3", "--set", "posterior.energy.smooth=3")


@pytest.fixture(scope="module")
def chest(tmp_path_factory):
    """A folder with a plan, two days, their doses and the true transforms; landmarks that lie on each other truly."""
    folder = tmp_path_factory.mktemp("chest")
    plan, days = CHEST.reference(), [CHEST.day(n) for n in (1, 2)]
    write_image(plan.image, folder / "plan.nii.gz")
    write_image(plan.labels, folder / "structures.nii.gz")
    for n, day in enumerate(days):
        write_image(day.ct, folder / f"day{n}.nii.gz")
        write_image(day.dose, folder / f"dose{n}.nii.gz")
        write_transform(day.truth, folder / f"truth{n}.h5")
    points = torch.rand(30, 2, generator=make_generator(0), dtype=torch.float64) * 120 - 60
    for name, where in (("fixed", points), ("moving", days[0].truth(points))):
        rows = "\n".join(f"{x},{y}" for x, y in where.tolist())
        (folder / f"{name}.csv").write_text(f"R,A\n{rows}\n")
    return folder


def uncertain(pullback, chest, out, *more):
    words = ("-f", chest / "plan.nii.gz", "-m", chest / "day0.nii.gz", "-t", chest / "truth0.h5", "-o", out)
    return pullback("uncertainty", *words, *QUICK, "--json", *more)


def test_what_is_written_is_the_posterior_and_its_samples(pullback, chest, tmp_path):
    code, told, _ = uncertain(pullback, chest, tmp_path / "out", "--samples", 3, "--seed", 5)
    assert code == 0
    content = json.loads(told)
    assert set(content["files"]) == {
        "deviation.png",
        "fixed_to_moving.h5",
        "index.html",
        "maps/deviation.nii.gz",
        "maps/deviation_a.nii.gz",
        "maps/deviation_r.nii.gz",
        "run.json",
        *(f"samples/sample_00{n}.h5" for n in (1, 2, 3)),
    }
    assert any("calibrated" in note for note in content["notes"])
    posterior = read_posterior(tmp_path / "out")
    assert posterior.smooth == 3.0
    parts = [read_image(tmp_path / "out" / "maps" / f"deviation_{a}.nii.gz").data for a in "ra"]
    total = read_image(tmp_path / "out" / "maps" / "deviation.nii.gz").data
    torch.testing.assert_close(total, torch.cat(parts, 1).square().sum(1, keepdim=True).sqrt())
    grid = posterior.mean.grid
    known = read_transform(chest / "truth0.h5").displacement(grid)
    torch.testing.assert_close(posterior.mean.field, known.float(), atol=1e-4, rtol=0)
    again = [one.field for one in posterior.draws(3, make_generator(5))]
    drawn = [one.displacement(grid) for one in read_transforms(tmp_path / "out" / "samples").values()]
    for one, other in zip(drawn, again, strict=True):
        torch.testing.assert_close(one.float(), other, atol=1e-4, rtol=0)
    assert (drawn[0] - drawn[1]).abs().max() > 1e-3


def test_landmarks_measure_and_calibrate(pullback, chest, tmp_path):
    """The transform is the truth, so errors are nothing beside any deviation; and one that is wrong tells its size."""
    marks = ("--fixed-points", chest / "fixed.csv", "--moving-points", chest / "moving.csv", "--samples", 0)
    code, told, said = uncertain(pullback, chest, tmp_path / "true", *marks)
    assert code == 0, said + told
    known = json.loads(told)["landmarks"]
    assert (code, known["count"]) == (0, 30)
    assert known["temperature they tell"] < 0.05
    assert known["before"]["coverage 90 %"] == 100
    assert not (tmp_path / "true" / "samples").exists()
    assert (tmp_path / "true" / "landmarks.svg").is_file()
    grid = read_image(chest / "plan.nii.gz").grid
    write_transform(Displacement(torch.zeros(1, 2, *grid.shape), grid), chest / "still.h5")
    out = tmp_path / "still"
    words = ("-f", chest / "plan.nii.gz", "-m", chest / "day0.nii.gz", "-t", chest / "still.h5", "-o", out)
    code, told, _ = pullback("uncertainty", *words, *QUICK, *marks, "--calibrate", "--json")
    still = json.loads(told)["landmarks"]
    assert still["after"]["rms z"] == pytest.approx(1, abs=1e-6)
    assert still["after"]["log density"] > still["before"]["log density"]
    factor = still["temperature they tell"]
    calm = uncertainty_files(
        ImageFiles([chest / "plan.nii.gz"]),
        ImageFiles([chest / "day0.nii.gz"]),
        unmoved,
        tmp_path / "again",
        UncertaintyHow(members=(unmoved,), factor=2.0, samples=0),
    )
    assert calm["posterior"]["by"] == "the spread of 2 registers"
    doubled = read_scalar(tmp_path / "again" / "maps" / "deviation_r.nii.gz").data
    torch.testing.assert_close(doubled, torch.full_like(doubled, 2 * 0.05 * 8))
    scaled = read_image(out / "maps" / "deviation_r.nii.gz").data
    plain = pullback("uncertainty", *words[:-1], tmp_path / "plain", *QUICK, "--samples", 0)
    assert plain[0] == 0
    torch.testing.assert_close(scaled, factor * read_image(tmp_path / "plain" / "maps" / "deviation_r.nii.gz").data)


def test_without_samples_the_dose_is_the_sum_through_the_files(pullback, chest, tmp_path):
    words = [word for n in (0, 1) for word in ("--dose", chest / f"dose{n}.nii.gz", "-t", chest / f"truth{n}.h5")]
    more = ("--plan", chest / "plan.nii.gz", "--structures", chest / "structures.nii.gz", "-o", tmp_path / "out")
    code, told, _ = pullback("dose", *words, *more, "--name", "1=target", "--json")
    content = json.loads(told)
    assert (code, content["samples"], content["nominal coverage %"]) == (0, 0, None)
    assert set(content["files"]) == {"dose.nii.gz", "dvh.csv", "dvh.svg", "index.html", "run.json", "structures.csv"}
    grid = read_image(chest / "plan.nii.gz").grid
    doses = [read_image(chest / f"dose{n}.nii.gz") for n in (0, 1)]
    expected = accumulated(doses, [read_transform(chest / f"truth{n}.h5") for n in (0, 1)], onto=grid)
    torch.testing.assert_close(read_image(tmp_path / "out" / "dose.nii.gz").data, expected.data)
    known = dvh(expected, CHEST.reference().labels.data == 1)
    row = next(row for row in content["structures"] if row["structure"] == "target")
    assert row["D95"] == pytest.approx(float(known.at_volume(0.95)))
    assert [row["structure"] for row in content["structures"]] == ["target", "2", "3", "4", "5"]


def saved(folder, seed):
    """A posterior around no motion, of one voxel, as `uncertainty` writes it."""
    grid = CHEST.grid
    deviation = torch.full((1, 2, *grid.shape), 1.0)
    (folder / "maps").mkdir(parents=True)
    for name, image in deviation_maps(deviation, grid).items():
        write(image, folder / "maps" / f"{name}.nii.gz")
    write_transform(Displacement(torch.zeros_like(deviation), grid), folder / "fixed_to_moving.h5")
    (folder / "run.json").write_text(json.dumps({"posterior": {"smooth": 3.0, "seed": seed}}))
    return Posterior(Displacement(torch.zeros_like(deviation), grid), deviation, 3.0)


def test_bands_are_of_samples_of_all_days_together(chest, tmp_path):
    """Each end of a band is a percentile of D_v over sums of doses, by hand; a certain day has no part in them."""
    posterior = saved(tmp_path / "run", 0)
    files = [chest / "dose0.nii.gz", chest / "dose1.nii.gz"]
    ways = [tmp_path / "run", chest / "truth1.h5"]
    plan, structures = chest / "plan.nii.gz", chest / "structures.nii.gz"
    content = dose_files(plan, files, ways, structures, tmp_path / "out", DoseHow(12, 3, names=STRUCTURES))
    doses, truth = [read_image(path) for path in files], read_transform(ways[1])
    target = CHEST.reference().labels.data == 1
    each = [
        float(dvh(accumulated(doses, [one, truth], onto=CHEST.grid), target).at_volume(0.95))
        for one in posterior.draws(12, make_generator(3, 0))
    ]
    low, high = torch.quantile(torch.tensor(each).double(), torch.tensor([0.05, 0.95]).double()).tolist()
    row = next(row for row in content["structures"] if row["structure"] == "target")
    assert (row["D95 low"], row["D95 high"]) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert content["nominal coverage %"] == pytest.approx(100 * 0.9 * 11 / 13, abs=0.05)
    assert any("taken as certain" in note for note in content["notes"])
    assert any(note.startswith("12 samples") for note in content["notes"])


def test_a_folder_of_samples_serves_as_well_and_other_doses_are_held_against_it(pullback, chest, tmp_path):
    posterior = saved(tmp_path / "run", 0)
    (tmp_path / "samples").mkdir()
    drawn = list(posterior.draws(5, make_generator(0)))
    for n, one in enumerate(drawn):
        write_transform(one, tmp_path / "samples" / f"s{n}.h5")
    inputs = ("--plan", chest / "plan.nii.gz", "--structures", chest / "structures.nii.gz", "--dose")
    words = (*inputs, chest / "dose0.nii.gz", "-t", tmp_path / "samples", "--against", tmp_path / "mean.nii.gz")
    mean, _ = mean_and_deviation(drawn, CHEST.grid)
    dose = accumulated([read_image(chest / "dose0.nii.gz")], [mean], onto=CHEST.grid)
    write_image(dose, tmp_path / "mean.nii.gz")
    code, told, _ = pullback("dose", *words, "-o", tmp_path / "out", "--json")
    content = json.loads(told)
    assert (code, content["samples"]) == (0, 5)
    assert set(content["in the band %"]["mean.nii.gz"]) == {"1", "2", "3", "4", "5"}
    torch.testing.assert_close(read_image(tmp_path / "out" / "dose.nii.gz").data, dose.data, atol=1e-4, rtol=0)
    far = Image(dose.data + 5, dose.grid)
    write_image(far, tmp_path / "mean.nii.gz")
    _, told, _ = pullback("dose", *words, "-o", tmp_path / "far", "--json")
    assert set(json.loads(told)["in the band %"]["mean.nii.gz"].values()) == {0.0}
    code, text, _ = pullback("dose", *words, "-o", tmp_path / "wide", "--margin", 100)
    assert code == 0
    assert "100 %" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"doses": 1}, "as many of each"),
        ({"negative": True}, "no dose is below 0"),
        ({"names": {9: "lens"}}, "labels 9"),
        ({"samples": 1}, "two samples"),
    ],
)
def test_what_does_not_fit_is_refused(chest, tmp_path, change, said):
    files = [chest / "dose0.nii.gz", chest / "dose1.nii.gz"][: change.get("doses", 2)]
    if change.get("negative"):
        dose = read_image(files[0])
        write_image(Image(dose.data - 1, dose.grid), tmp_path / "low.nii.gz")
        files[0] = tmp_path / "low.nii.gz"
    ways, numbers = [chest / "truth0.h5", chest / "truth1.h5"], {"names": change.get("names", {})}
    plan, structures = chest / "plan.nii.gz", chest / "structures.nii.gz"
    with pytest.raises(InputError, match=said):
        dose_files(plan, files, ways, structures, tmp_path / "out", DoseHow(change.get("samples", 5), **numbers))
    assert not (tmp_path / "out").exists()


def test_options_that_do_not_go_together_are_refused(pullback, chest, tmp_path):
    code, _, said = uncertain(pullback, chest, tmp_path / "out", "--preset", "fast")
    assert code == 1
    assert "-t names its answer" in said + _
    code, _, said = uncertain(pullback, chest, tmp_path / "out", "--calibrate")
    assert "needs --fixed-points" in said + _
    code, _, said = uncertain(pullback, chest, tmp_path / "out", "--fixed-points", chest / "fixed.csv")
    assert "of both images" in said + _
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not of `pullback uncertainty`"):
        read_posterior(tmp_path / "empty")
