"""Slices located in a volume: the pose of one or several, what it leaves open, and the slices where they lie."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from pullback.errors import InputError, refuse
from pullback.files import read_image, read_labels, read_transform, write_image, write_transform
from pullback.files.images.nifti import refuse_sheared
from pullback.files.images.plane import read_slice
from pullback.methods.pose.radial_to_volume import LocatedRadial, RadialToVolume
from pullback.methods.pose.slice_to_volume import LocatedSlices, SliceToVolume
from pullback.numerics.rotation import angles_between
from pullback.records.manifest import manifest, write_json
from pullback.report.slices_in_volume import ShownSlice, write_slices
from pullback.space import Affine, Image, emulated, laid_in, placed
from pullback.study.recipe import as_data, changed
from pullback.workflows.outputs import RECORD, names_in, refuse_without, transaction
from pullback.workflows.register import DRAWN_WITH

SURE = 0.05
"""Lead over the best other pose that was met, below which the slices may lie elsewhere."""
TO_VOLUME, TO_SLICES = "slices_to_volume.h5", "volume_to_slices.h5"
ORIGINS: Mapping[str, str] = {
    "header": "as the headers say",
    "centres": "the middle of the slices in that of the volume, since the headers lead elsewhere",
    "given": "as given",
}
NOTES = (
    f"{TO_VOLUME} takes points of the slices to the volume. Images travel the other way: `pullback apply` brings the "
    f"volume, or its labels, onto a slice by this file, and a slice onto the volume by {TO_SLICES}, its inverse.",
    "…_from_volume.nii.gz is the volume in the place of a slice, through its thickness.",
    "…_in_volume.nii.gz is a slice with its own pixels, whose header says where it lies in the volume: viewers show it "
    "there.",
    "in_volume.nii.gz is what all slices measured, on the grid of the volume, and slices_there.nii.gz how many did.",
    "lead: how much less the best other pose that the search met gains over chance. Near 0, the slices fit elsewhere "
    "as well.",
)


@dataclass(frozen=True)
class LocateHow:
    """The way slices are located.

    Attributes:
        settings: of `SliceToVolume`, by dotted keys.
        start: file of a transform that takes points of the slices to the volume; None begins as the headers say.
        apart: whether each slice has a pose of its own in the end.
        reorder: whether the slices share an axis, in an order and with flips that are not known.
        masks: of one bone in each slice, which share an axis.
        bone: the same in the volume.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    start: Path | None = None
    apart: bool = False
    reorder: bool = False
    masks: Sequence[Path] = ()
    bone: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """The files that are read beside slices and volume."""
        return [path for path in (self.start, self.bone, *self.masks) if path is not None]

    @property
    def located_by(self) -> SliceToVolume:
        """The search for the pose.

        Raises:
            InputError: a setting of something else.
        """
        return changed(SliceToVolume(free=self.apart), self.settings)


def locate_in_volume(
    slices: Sequence[Path],
    volume: Path,
    out: str | Path,
    device: torch.device = torch.device("cpu"),
    how: LocateHow = LocateHow(),
) -> dict[str, Any]:
    """Find the pose of slices in a volume, and write the results into `out`.

    These are the transform and its inverse; of each slice the volume in its place, and itself in the space of the
    volume; all of them on the volume's grid; `index.html` with pictures, and `run.json`. Nothing is written before all
    has succeeded.

    Args:
        slices: images one voxel thick, each where its header puts it.
        volume: 3-D, of any contrast.
        out: the folder.
        device: where to compute.
        how: what is known, and what is sought.

    Returns:
        The content of `run.json`.

    Raises:
        InputError: a file that cannot be read, a slice that is none, masks that do not fit, or a volume that shows less
            than half of the slices.
    """
    refuse_without((*DRAWN_WITH, "matplotlib"))
    begin, names = time.perf_counter(), _names(slices)
    images = [read_slice(path) for path in slices]
    for image, path in zip(images, slices, strict=True):
        refuse_sheared(image.grid, path)
    whole = read_image(volume)
    if whole.grid.ndim != 3:
        raise InputError(f"--in {volume}: a slice; a volume, in which slices lie, is expected")
    refuse_sheared(whole.grid, volume)
    answer, shown = _answer([one.to(device) for one in images], whole.to(device), how)
    found = answer if isinstance(answer, LocatedSlices) else answer.found
    poses = [Affine(pose.matrix.cpu()) for pose in found.poses]
    start = found.stats.start.as_affine if found.stats.start is not None else None
    begun = Affine(torch.eye(4).double() if start is None else start.matrix.cpu())
    laid = [one.to(torch.device("cpu")) for one in shown]
    with transaction(Path(out), [*slices, volume, *how.paths], [TO_VOLUME, TO_SLICES, RECORD]) as folder:
        _write(folder, names, laid, poses, Affine(found.transform.matrix.cpu()), whole, how.apart)
        content: dict[str, Any] = manifest() | {
            "slices": {name: _about(found, n, slices[n], begun, laid[n]) for n, name in enumerate(names)},
            "volume": str(volume),
            "begun": found.stats.origin,
            "lead": found.stats.confidence,
            "energy": round(found.energy, 6),
            "overlap": round(found.overlap, 4),
            "undetermined": list(found.freedom.in_words),
            "curvatures": found.freedom.curvatures.tolist(),
            "order": _order(answer),
            "quality": _quality(found),
            "settings": as_data(how.located_by),
            "notes": list(NOTES),
            "seconds": {"all": round(time.perf_counter() - begin, 3)},
            "device": str(device),
        }
        each = [ShownSlice(n, i, begun, p) for n, i, p in zip(names, laid, poses, strict=True)]
        title = f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''} in {volume.name}"
        write_slices(folder, each, whole, title, in_words(content), NOTES, _table(content))
        content["files"] = [*names_in(folder), RECORD]
        write_json(content, folder / RECORD)
    return content


def _answer(
    images: Sequence[Image], volume: Image, how: LocateHow
) -> tuple[LocatedSlices | LocatedRadial, Sequence[Image]]:
    """Return the pose, and the slices in their planes."""
    start = None
    if how.start is not None:
        start = read_transform(how.start).as_affine
        if start is None or start.ndim != 3:
            raise InputError(f"--start {how.start}: a rigid or affine transform in 3-D expected, for slices stay flat")
    if bool(how.masks) != (how.bone is not None):
        raise InputError("--mask and --volume-mask: a bone marked in every slice, and in the volume, belong together")
    if not how.masks and not how.reorder:
        answer = how.located_by(images, volume, start)
        return answer, images
    masks, bone = None, None
    if how.bone is not None:
        if len(how.masks) != len(images):
            raise InputError(f"--mask: {len(images)} expected, one of each slice, got {len(how.masks)}")
        masks = [read_labels(path, image.grid, "mask", 3) for path, image in zip(how.masks, images, strict=True)]
        bone = read_labels(how.bone, volume.grid, "mask")
        refuse({"--start": how.start}, "is found by --mask and --volume-mask")
    radial = RadialToVolume(how.located_by, how.reorder)(images, volume, start, masks, bone)
    return radial, radial.slices


def _write(
    folder: Path,
    names: Sequence[str],
    images: Sequence[Image],
    poses: Sequence[Affine],
    transform: Affine,
    volume: Image,
    apart: bool,
) -> None:
    """Write transforms and images."""
    write_transform(transform, folder / TO_VOLUME)
    write_transform(transform.inverse(), folder / TO_SLICES)
    for name, image, pose in zip(names, images, poses, strict=True):
        if apart:
            write_transform(pose, folder / f"{name}_to_volume.h5")
        write_image(emulated(volume, pose, image), folder / f"{name}_from_volume.nii.gz")
        write_image(placed(replace(image, mask=None), pose.inverse()), folder / f"{name}_in_volume.nii.gz")
    mean, count = laid_in(images, poses, volume.grid)
    write_image(mean, folder / "in_volume.nii.gz")
    write_image(count, folder / "slices_there.nii.gz")


def _about(found: LocatedSlices, n: int, path: Path, start: Affine, image: Image) -> dict[str, Any]:
    """Return the numbers of a slice."""
    pose = found.poses[n]
    middle = image.grid.centre[None]
    turn = torch.stack([each.matrix[:3, :3].cpu() for each in (start, pose)])
    pose = Affine(pose.matrix.cpu())
    return {
        "file": str(path),
        "energy": round(float(found.energies[n]), 6),
        "moved mm": round(float((pose(middle) - start(middle)).norm()), 3),
        "turned °": round(float(angles_between(turn[0], turn[1])), 3),
        "middle in the volume": [round(x, 3) for x in pose(middle)[0].tolist()],
    }


def _order(answer: LocatedSlices | LocatedRadial) -> dict[str, Any] | None:
    """Return what was found of the order of radial slices."""
    if isinstance(answer, LocatedSlices) or answer.order is None or answer.neighbours is None:
        return None
    order, told = answer.order, answer.neighbours
    rows = zip(order.planes, order.slices, order.across, order.along, strict=True)
    return {
        "planes": [{"plane": p, "slice": s, "across": a, "along": b} for p, s, a, b in rows],
        "alike": told.alike,
        "next": None if math.isinf(told.next) else round(told.next, 4),
    }


def _quality(found: LocatedSlices) -> dict[str, Any]:
    """Return whether the pose can be trusted, and why not."""
    reasons = []
    lead = found.stats.confidence
    if lead is not None and lead < SURE:
        reasons.append("the slices fit nearly as well in another place")
    if found.overlap < 0.5:
        reasons.append("less than half of the slices lies in the volume")
    return {"passed": not reasons, "reasons": reasons}


def _names(slices: Sequence[Path]) -> list[str]:
    """Return a name of each slice; of files that are called alike, with its number."""
    names = [path.name.removesuffix(".gz").removesuffix(".nii").rsplit(".dcm", 1)[0] for path in slices]
    return [f"{name}_{n + 1}" if names.count(name) > 1 else name for n, name in enumerate(names)]


def in_words(content: Mapping[str, Any]) -> str:
    """Say in a few sentences what was found."""
    lead = "" if content["lead"] is None else f", lead {content['lead']:.2f} over other places"
    said = [f"Begun {ORIGINS[content['begun']]}; {content['overlap']:.0%} of the slices in the volume{lead}."]
    if content["order"] is not None and content["order"]["alike"] > 2:
        said.append(f"{content['order']['alike']} orders of the slices are equally good.")
    free = content["undetermined"]
    said.append(f"Not determined: {'; '.join(free)}." if free else "All six directions of the pose are determined.")
    if content["quality"]["reasons"]:
        said.append(f"It looks failed: {'; '.join(content['quality']['reasons'])}.")
    return " ".join(said)


def _table(content: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "slice": name,
            "moved, mm": f"{one['moved mm']:.2f}",
            "turned, °": f"{one['turned °']:.2f}",
            "mutual information": f"{-one['energy']:.3f}",
            "middle in the volume, mm": ", ".join(f"{x:.1f}" for x in one["middle in the volume"]),
        }
        for name, one in content["slices"].items()
    ]


def summary(content: Mapping[str, Any], out: str | Path) -> str:
    """Summarise the answer of `locate_in_volume` for a person."""
    rows = [
        f"{name}: moved {one['moved mm']:.2f} mm, turned {one['turned °']:.2f}°"
        for name, one in content["slices"].items()
    ]
    return "\n".join([*rows, in_words(content), f"Look at {Path(out) / 'index.html'}"])
