"""Slices located on the plates of an atlas: candidates with their confidence, and the slice laid on the first."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from pullback.alignment import Pair
from pullback.data.planes import Planes
from pullback.data.slices import Atlas, OfAtlas, PlateFiles, Plates, as_square, plain
from pullback.errors import InputError, refuse
from pullback.files import read_image, write_image, write_transform
from pullback.methods.method import find_method
from pullback.methods.pose.slice_identification import Ranking, SliceEvaluation, WithViews, ranked
from pullback.methods.pose.slice_search import LAID, TemplateSearch, placed, similarity, turning
from pullback.records.csv_records import write_csv
from pullback.records.manifest import manifest, write_json
from pullback.report.located import LocatedSlice, Thumbnail, overlaid, write_located
from pullback.space import Image, pull
from pullback.study.recipe import changed
from pullback.study.run import load_run
from pullback.training.measure import evaluating
from pullback.workflows.how import How, register_of
from pullback.workflows.outputs import RECORD, names_in, refuse_without, transaction
from pullback.workflows.register import DRAWN_WITH

TABLE, PAGE, RECIPE = "candidates.csv", "index.html", "recipe.yaml"
UPRIGHT, TURNED = (0, False), 0.8
"""How a slice is seen first, and the share of its distance below which another way is believed."""
WAYS = (
    UPRIGHT,
    *((quarters, mirrored) for mirrored in (False, True) for quarters in range(4) if (quarters, mirrored) != UPRIGHT),
)
SURE, NEAR = 0.5, 2
"""Share of views that agree, to so many plates, below which a slice is called lost."""
PIXELS = 80
VIEWS_OF_SEARCH = 4
NOTES = (
    "distance: of embeddings of length 1, 0 to 2; without a run, one less the best correlation.",
    "confidence: of slightly changed views of the slice, the share to which this plate is the nearest. It says how far "
    "the answer depends on chance, and not that the slice is of this atlas.",
    "slice_to_plate takes points of the slice to the plate. Images travel the other way: pullback apply brings the "
    "plate, or its labels, onto the slice by this file. plate_to_slice is its inverse.",
    "Pictures: the slice as it is compared, its candidates, and the slice (blue) with the plate (orange) laid on it.",
)


@dataclass(frozen=True)
class PlateSearch:
    """A comparison of slices with the plates of an atlas.

    Attributes:
        identifier: asked for distances, of several views of each slice.
        atlas: the plates.
        pixels: along each edge of what is compared.
        about: for the record.
    """

    identifier: WithViews
    atlas: Atlas
    pixels: int
    about: Mapping[str, Any]


def locate_plates(
    slices: Sequence[Path],
    within: Path,
    out: str | Path,
    run: Path | None = None,
    how: How = How(),
    top: int = 5,
    count: int = 1,
    axis: int | None = None,
    turned: bool = False,
    trusted: Sequence[str] = (),
    device: torch.device = torch.device("cpu"),
    console: Console | None = None,
) -> dict[str, Any]:
    """Find which plates slices show, lay each on its likeliest ones, and write the results into `out`.

    These are `candidates.csv`, `index.html` with pictures, `run.json`, and for each slice a folder with the transforms
    and the plates brought onto it.

    Args:
        slices: 2-D images.
        within: a folder of plates, a run, or with `run` a volume whose planes are the plates.
        out: the folder.
        run: of slice-identification; None compares by a search.
        how: to align a slice and its plate; without a method or a preset by `LAID`.
        top: candidates that are told of each slice.
        count: of them to which it is registered.
        axis: across the planes of a volume.
        turned: whether slices may be turned by quarters or mirrored; all eight ways are tried then.
        trusted: packages whose parts a run may use.
        device: where to compute.
        console: where progress is shown.

    Returns:
        The content of `run.json`.

    Raises:
        InputError: a file that cannot be read or is no slice, no plates, a run of something else, or a method that
            cannot go on from a start.
    """
    if how.method is not None and "pair" not in find_method(how.method)[1].aligns:
        raise InputError(f"--method {how.method}: goes on from no start; a slice is placed by a method of pairs")
    refuse_without(DRAWN_WITH)
    names, begin = _names(slices), time.perf_counter()
    usual = how.method is None and how.preset is None
    register = changed(LAID, how.settings) if usual else register_of(how)
    asked = search_of(within, run, axis, trusted, device)
    plates = asked.atlas.load().to(device)
    with evaluating(asked.identifier.identifier):
        described = asked.identifier.described(plates.image)
    given = [*slices, *plates.files]
    with transaction(Path(out), given, [TABLE, PAGE, RECORD]) as folder:
        rows: list[dict[str, object]] = []
        shown: list[LocatedSlice] = []
        told: dict[str, Any] = {}
        for path, name in track([*zip(slices, names, strict=True)], "locating", console=console, transient=True):
            image = _slice(path)
            found = _identified(as_square(image, asked.pixels).to(device), asked, plates, described, turned)
            (folder / name).mkdir()
            laid = dict(_laid(image, found, plates, asked.atlas, register, min(count, top), folder / name))
            rows += _rows(name, found, laid, plates, top)
            shown.append(_shown(name, found, laid, plates, top))
            told[name] = {"file": str(path), **_told(found, top)}
        write_csv(rows, folder / TABLE)
        write_located(shown, folder / PAGE, f"{len(slices)} slices among {len(plates.numbers)} plates", NOTES)
        lost = [name for name, one in told.items() if one["confidence"] < SURE]
        content: dict[str, Any] = manifest() | {
            "plates": str(within),
            "run": run and str(run),
            **asked.about,
            "slices": told,
            "quality": {"passed": 2 * len(lost) <= len(told), "lost": lost},
            "notes": list(NOTES),
            "seconds": {"all": round(time.perf_counter() - begin, 3)},
            "device": str(device),
        }
        content["files"] = [*names_in(folder), RECORD]
        write_json(content, folder / RECORD)
    return content


def search_of(
    within: Path, run: Path | None, axis: int | None, trusted: Sequence[str], device: torch.device
) -> PlateSearch:
    """Return what slices are compared with, by what was named.

    Raises:
        InputError: a run of something else, or one without plates; or two runs.
    """
    is_run = (within / RECIPE).is_file()
    if is_run:
        refuse({"--run": run}, f"{within} is a run itself")
    if within.is_dir():
        refuse({"--axis": axis}, "is of a volume, and this is a folder")
    learned = within if is_run else run
    if learned is None:
        return PlateSearch(
            WithViews(TemplateSearch(size=48), count=VIEWS_OF_SEARCH), PlateFiles(str(within)), PIXELS, {"by": "search"}
        )
    recipe, network = load_run(learned, trusted, SliceEvaluation.aligns)
    data = recipe.data
    pixels = data.pixels if isinstance(data, OfAtlas) else PIXELS
    if not is_run:
        atlas: Atlas = PlateFiles(str(within), pixels=pixels) if within.is_dir() else Planes(str(within), axis, pixels)
    elif isinstance(data, OfAtlas):
        atlas = data.atlas
    else:
        raise InputError(f"{within}: this run does not say where its plates are; --in PLATES --run {within} does")
    return PlateSearch(WithViews(network.to(device)), atlas, pixels, {"by": "embedding"})


def _names(slices: Sequence[Path]) -> list[str]:
    """Return a name for each slice; files of one name in several folders have those of their folders before theirs."""
    names = [plain(path) for path in slices]
    names = [f"{p.parent.name}_{n}" if names.count(n) > 1 else n for p, n in zip(slices, names, strict=True)]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise InputError(f"{double[0]}: several slices are called so; name each once, by different names")
    return names


def _slice(path: Path) -> Image:
    image = read_image(path)
    if image.grid.ndim != 2:
        raise InputError(f"{path}: a slice, which is 2-D, expected, got {image.grid.shape}")
    return image


@dataclass(frozen=True, eq=False)
class _Identified:
    """A slice as it is compared, its ranking, and how it had to be turned and mirrored first."""

    image: Image
    ranking: Ranking
    turned: tuple[int, bool]


def _identified(image: Image, asked: PlateSearch, plates: Plates, described: Any, turned: bool) -> _Identified:
    """Return the ranking of a slice, upright; where it may be turned, as another way of seeing it is nearer by far."""
    network = asked.identifier.identifier
    with evaluating(network):
        if not turned:
            return _Identified(image, ranked(asked.identifier, image, plates, described), UPRIGHT)
        seen = [pull(image, turning(*way), onto=image) for way in WAYS]
        nearest = [float(network.distances(one, described).min()) for one in seen]
        best = min(range(len(WAYS)), key=lambda n: nearest[n] * (TURNED if n == 0 else 1))
        return _Identified(seen[best], ranked(asked.identifier, seen[best], plates, described), WAYS[best])


def _laid(
    image: Image, found: _Identified, plates: Plates, atlas: Atlas, register: Any, count: int, folder: Path
) -> Iterator[tuple[int, tuple[Pair, float]]]:
    """Register a slice to its first plates and write what was found; yield squares and similarity by number."""
    for number in found.ranking.numbers[:count].tolist():
        plate = _plate(number, plates, atlas)
        answer, squares = placed(image, plate, register, turning(*found.turned))
        name = f"plate_{number:03d}"
        write_transform(answer.transform, folder / f"slice_to_{name}.h5", on=image.grid)
        write_transform(answer.inverse, folder / f"{name}_to_slice.h5", on=plate.grid)
        write_image(answer.moved, folder / f"{name}_on_slice.nii.gz")
        yield number, (squares, similarity(squares))


def _plate(number: int, plates: Plates, atlas: Atlas) -> Image:
    """Return a plate as it lies in its file, in grey."""
    if plates.files:
        return read_image(plates.files[plates.numbers.tolist().index(number)])
    assert isinstance(atlas, Planes)
    return atlas.plane(number)


def _rows(
    name: str, found: _Identified, laid: Mapping[int, tuple[Pair, float]], plates: Plates, top: int
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    ranking, files = found.ranking, dict(zip(plates.numbers.tolist(), plates.files, strict=False))
    for n, number in enumerate(ranking.numbers[:top].tolist()):
        rows.append(
            {
                "slice": name,
                "candidate": n + 1,
                "plate": number,
                "distance": round(float(ranking.distances[n]), 4),
                "confidence": round(float(ranking.votes[n]), 3),
                "similarity": round(laid[number][1], 4) if number in laid else "",
                "transform": f"{name}/slice_to_plate_{number:03d}.h5" if number in laid else "",
                "file": str(files.get(number, "")),
            }
        )
    return rows


def _told(found: _Identified, top: int) -> dict[str, Any]:
    """Return what the record says of one slice."""
    ranking, (quarters, mirrored) = found.ranking, found.turned
    return {
        "plates": ranking.numbers[:top].tolist(),
        "range": _range(ranking),
        "confidence": round(ranking.sure(NEAR), 3),
        "turned degrees": 90 * quarters,
        "mirrored": mirrored,
    }


def _range(ranking: Ranking) -> list[int]:
    """Return the first and the last of the plates that some view is nearest to."""
    voted = ranking.numbers[ranking.votes > 0]
    return [int(voted.min()), int(voted.max())]


def _shown(
    name: str, found: _Identified, laid: Mapping[int, tuple[Pair, float]], plates: Plates, top: int
) -> LocatedSlice:
    ranking, known = found.ranking, _told(found, top)
    low, high = known["range"]
    seen = (
        "as it is" if found.turned == UPRIGHT else f"turned by {90 * found.turned[0]}°" + ", mirrored" * found.turned[1]
    )
    pictures = [Thumbnail(_picture(found.image.data), f"the slice, {seen}")]
    for n, number in enumerate(ranking.numbers[:top].tolist()):
        data = plates.some(torch.tensor([number], device=plates.numbers.device)).data
        words = f"plate {number}: distance {float(ranking.distances[n]):.3f}, confidence {float(ranking.votes[n]):.0%}"
        pictures.append(Thumbnail(_picture(data), words))
    for number, (pair, value) in laid.items():
        fixed, moved = (one.data[0, 0].cpu() for one in pair.images)
        pictures.append(Thumbnail(overlaid(fixed, moved), f"laid on plate {number}: similarity {value:.2f}"))
    words = f"Plate {int(ranking.numbers[0])}; views say {low}" + (f" to {high}" if high > low else "")
    sure = known["confidence"] >= SURE
    doubt = "" if sure else " It may be none of them: a slice of something else, or too little of it."
    return LocatedSlice(
        name, f"{words}; {known['confidence']:.0%} of them within {NEAR} plates.{doubt}", pictures, sure
    )


def _picture(data: Tensor) -> Any:
    return data[0, 0].cpu().numpy()


def summary(content: Mapping[str, Any], out: str | Path) -> str:
    """Summarise the answer of `locate_plates` for a person."""
    lines = []
    for name, one in content["slices"].items():
        first, *others = one["plates"]
        turned = f", turned by {one['turned degrees']}°" if one["turned degrees"] else ""
        turned += ", mirrored" if one["mirrored"] else ""
        then = f", then {', '.join(map(str, others))}" if others else ""
        lines.append(f"{name}: plate {first} ({one['confidence']:.0%} sure to {NEAR} plates){then}{turned}")
    lost = content["quality"]["lost"]
    lines.append(f"quality: {'sound' if content['quality']['passed'] else 'looks FAILED (exit code 3)'}")
    lines += [f"  not sure: {', '.join(lost)}"] if lost else []
    return "\n".join([*lines, f"Look at {Path(out) / PAGE} and {Path(out) / TABLE}"])
