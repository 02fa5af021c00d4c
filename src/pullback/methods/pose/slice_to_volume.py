"""Slices to a volume: the one pose of a few slices in a scan of another contrast.

Abbas et al. 2022, an intermediate report. From it: slices that are emulated from the volume and compared with the real
ones by mutual information, and a binary search by vote over the angle about their common axis. The rough start by a
body that is made of the slices is in `radial`. Decided here: thickness, all six degrees of freedom, starts about a
known one, and what is told of directions that the slices leave free.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullback.data import normalised
from pullback.energies import MI
from pullback.energies.information import Information
from pullback.errors import InputError
from pullback.methods.method import Method, Paper
from pullback.methods.pose.freedom import Freedom, freedom_of
from pullback.methods.pose.slice_likeness import (
    Likeness,
    area_of,
    averaged,
    box_of,
    common_frame,
    corners_of,
    listed,
    radius_of,
)
from pullback.solvers import Descend, within_view
from pullback.space import Affine, Grid, Image, Motion, layers_of, placed, resampled, through_axis
from pullback.stats import Stats

LEAST = 0.5  # of the slices' pixels that must lie in the volume
TOGETHER = 32  # poses that are compared at once


@dataclass(frozen=True, eq=False)
class LocatedSlices:
    """The pose of slices in a volume.

    Attributes:
        transform: points of the slices → points of the volume.
        poses: of each slice: all the same, unless each had one of its own.
        energy: of all slices at these poses.
        energies: `(K,)`, of each slice by itself.
        overlap: share of the slices' pixels that lie in the volume.
        freedom: which directions are determined.
        stats: the start, its lead over rivals, where a search had any, and the descents.
    """

    transform: Affine
    poses: tuple[Affine, ...]
    energy: float
    energies: Tensor
    overlap: float
    freedom: Freedom
    stats: Stats


@dataclass(frozen=True)
class StartSearch:
    """Starts about a known one, of which the best descend a little at low resolution.

    Attributes:
        starts: how many, evenly over all six directions (Sobol's sequence); 0 takes the known start alone.
        shift: mm, of the furthest start along each axis.
        turn: degrees, of the furthest about each axis.
        kept: of them descend.
        pixels: of all slices together, about as many.
        solver: of that descent; its step in pixels.
        seed: of the sequence.
    """

    starts: int = 512
    shift: float = 20.0
    turn: float = 30.0
    kept: int = 12
    pixels: int = 2000
    solver: Descend = Descend(steps=50, step_size=0.4, last=0.2)
    seed: int = 0


@dataclass(frozen=True)
class SliceToVolume:
    """A search for the rigid pose of slices in a volume, by what the volume shows in their place.

    All slices move as one, for they were measured in one session; or, if `free`, each by itself in the end, held
    near to the others.

    Attributes:
        energy: mutual information, for any contrast, or another energy of a joint histogram.
        shared: whether the slices have one contrast: one histogram of all of them.
        search: of the start.
        solver: of the descent in six degrees of freedom; its step is in voxels of the volume.
        layers: through the thickness of a slice; 0 for as many as its thickness asks for.
        most: pixels of all slices together; finer ones are averaged first.
        free: whether each slice has a pose of its own in the end.
        tether: that holds those together, per mm².
    """

    energy: Information = MI()
    shared: bool = True
    search: StartSearch = StartSearch()
    solver: Descend = Descend(steps=100, step_size=0.3, last=0.05)
    layers: int = 0
    most: int = 60_000
    free: bool = False
    tether: float = 0.01

    def __call__(self, slices: Sequence[Image], volume: Image, start: Affine | None = None) -> LocatedSlices:
        """Return the pose of slices, `(1, 1, X, Y, 1)` each, in a volume, `(1, 1, X, Y, Z)`.

        Args:
            slices: one voxel thick, where their headers put them; pixels outside their masks do not count.
            volume: its own mask says where to look; by default everywhere but at its rim.
            start: points of the slices → points of the volume, or several, `(S, 4, 4)`, which are all tried; by default
                as the headers say or, where these leave most of the slices outside the volume, the middle of the slices
                in the middle of the volume.

        Raises:
            InputError: no slice, one that is no slice in space, a volume that is none, or one that shows less than half
                of the slices wherever they were sought.
        """
        _check(slices, volume)
        frame = common_frame(slices)
        likeness = self.likeness([placed(one, frame) for one in slices], volume)
        starts, origin = self._starts(likeness, start, frame)
        stats = Stats(Affine(starts.matrix[0] @ torch.linalg.inv(frame.matrix)), origin)
        begun, lead = self._sought(likeness, starts)
        stats = replace(stats, confidence=lead)
        overlap = float(likeness.measured(begun)[1])
        if overlap < LEAST:
            raise InputError(
                f"the volume shows {overlap:.0%} of the slices, and half of them is needed; are they of one body part, "
                f"and their headers in one space? Say where they lie by a start, or search further"
            )
        box = box_of(likeness.slices)
        edge = float(volume.grid.spacing.min())
        solver = replace(self.solver, step_size=self.solver.step_size * edge)
        motion, descent = solver(likeness, start=Motion.rigid(begun, box))
        found = Affine(motion.matrix.detach())
        poses, stats = [found] * len(slices), stats.then(descent)
        if self.free and len(slices) > 1:
            poses, more = self._each(likeness, found, box, solver)
            stats = stats.then(more)
        freedom = freedom_of(likeness, found, box, frame, edge)
        back = torch.linalg.inv(frame.matrix)
        with torch.no_grad():
            energies = torch.stack([likeness.each(pose)[0, k] for k, pose in enumerate(poses)])
            energy = float(likeness.apart(poses))
        return LocatedSlices(
            Affine(found.matrix @ back),
            tuple(Affine(pose.matrix @ back) for pose in poses),
            energy,
            energies,
            float(likeness.measured(found)[1]),
            freedom,
            stats,
        )

    def likeness(self, slices: Sequence[Image], volume: Image) -> Likeness:
        """Return the energy of the pose of slices in a volume, with intensities normalised and large slices averaged.

        Raises:
            InputError: a slice, or the volume, is constant.
        """
        pixels = sum(one.data.numel() for one in slices)
        finest = (pixels / self.most) ** 0.5
        seen = [averaged(one, finest * float(one.grid.spacing.min())) if finest > 1 else one for one in slices]
        if self.shared:
            window = normalised(listed(seen)).data.flatten()
            parts = window.split([one.data.numel() for one in seen])
            seen = [replace(one, data=part.view_as(one.data)) for one, part in zip(seen, parts, strict=True)]
        else:
            seen = [normalised(one) for one in seen]
        layers = tuple(self.layers or layers_of(one.grid, volume.grid) for one in seen)
        return Likeness(tuple(seen), within_view(normalised(volume)), self.energy, layers, self.shared)

    def _starts(self, likeness: Likeness, start: Affine | None, frame: Affine) -> tuple[Affine, str]:
        """Return the starts from the common frame, `(S, 4, 4)`, and where they come from."""
        given = torch.eye(4, dtype=torch.float64) if start is None else start.matrix.double()
        begun = Affine((given @ frame.matrix).reshape(-1, 4, 4))
        if start is not None or float(likeness.measured(begun)[1]) >= LEAST:
            return begun, "header" if start is None else "given"
        middle = Affine.about(frame.matrix[:3, :3], torch.zeros(3).double(), likeness.volume.grid.centre)
        return Affine(middle.matrix[None]), "centres"

    def _sought(self, likeness: Likeness, starts: Affine) -> tuple[Affine, float | None]:
        """Return the best of many starts, after a short descent at low resolution, and its lead over the next.

        Chance is the median of all that were tried; an answer gains what it is better than that, and leads by the
        share of its gain that the best other answer, some pixels away, lacks.
        """
        search, box = self.search, box_of(likeness.slices)
        if not search.starts and len(starts.matrix) == 1:
            return Affine(starts.matrix[0]), None
        edge = (sum(area_of(one.grid) for one in likeness.slices) / search.pixels) ** 0.5
        spacing = [max(edge, own) for own in likeness.volume.grid.spacing.tolist()]
        coarse = replace(
            likeness,
            slices=tuple(averaged(one, edge) for one in likeness.slices),
            volume=resampled(likeness.volume, spacing),
            layers=(1,) * len(likeness.slices),
        )
        tried = Affine(torch.cat([starts.matrix, self._about(Affine(starts.matrix[0]), box).matrix]))
        energies = _measured(coarse, tried)
        chance = float(energies[energies.isfinite()].median()) if energies.isfinite().any() else 0.0
        kept = energies.argsort()[: search.kept]
        kept = kept if (kept == 0).any() else torch.cat([torch.zeros(1).long(), kept[:-1]])  # the known one always
        solver = replace(search.solver, step_size=search.solver.step_size * edge)
        ended, _ = solver(coarse, start=Motion.rigid(Affine(tried.matrix[kept]), box))
        matrices = ended.matrix.detach()
        values = _measured(coarse, Affine(matrices))
        best = int(values.argmin())
        corners = torch.cat([corners_of(one.grid) for one in likeness.slices]).T[None]
        away = (Affine(matrices).at(corners) - Affine(matrices[best]).at(corners)).norm(dim=1).mean(1)
        gains = (chance - values) / (chance - values[best]).clamp(min=1e-12)
        rival = max(gains[away > 3 * edge].tolist(), default=0.0)
        return Affine(matrices[best]), 1 - max(rival, 0.0)

    def _about(self, start: Affine, box: Grid) -> Affine:
        """Return the starts about a known one, `(N, 4, 4)`."""
        search, motion = self.search, Motion.rigid(start, box)
        if not search.starts:
            return Affine(start.matrix.new_zeros(0, 4, 4))
        reach = torch.tensor([torch.pi / 180 * search.turn * radius_of(box)] * 3 + [search.shift] * 3)
        draws = torch.quasirandom.SobolEngine(6, scramble=True, seed=search.seed).draw(search.starts)
        return Affine(motion.with_params(((2 * draws - 1) * reach).double()).matrix)

    def _each(self, likeness: Likeness, found: Affine, box: Grid, solver: Descend) -> tuple[list[Affine], Stats]:
        """Return a pose of each slice, held near to their mean."""
        count = len(likeness.slices)
        motion = Motion.rigid(Affine(found.matrix.expand(count, 4, 4)), box)

        def objective(poses: Motion) -> Tensor:
            spread = (poses.coefficients - poses.coefficients.mean(0)).square().sum(1).mean()
            return likeness.apart([poses.nth(k) for k in range(count)]) + self.tether * spread

        ended, stats = solver(objective, start=motion)
        return [Affine(matrix) for matrix in ended.matrix.detach()], stats


def _measured(likeness: Likeness, poses: Affine) -> Tensor:
    """Return the energy of poses `(N, 4, 4)`, `(N,)`; infinite where less than half lies in the volume."""
    values = []
    for some in poses.matrix.split(TOGETHER):
        energies, overlap = likeness.measured(Affine(some))
        values.append(energies.where(overlap >= LEAST, torch.inf))
    return torch.cat(values)


def _check(slices: Sequence[Image], volume: Image) -> None:
    if not slices:
        raise InputError("no slice to locate; one or more, each one voxel thick, are expected")
    for n, one in enumerate(slices):
        try:
            through_axis(one.grid)
        except ValueError as error:
            raise InputError(f"slice {n + 1}: {error}") from error
    if volume.grid.ndim != 3 or min(volume.grid.shape) < 2:
        raise InputError(f"a volume expected in which slices are to be located, got {volume.grid}")


METHOD = Method(
    about="the pose of one or a few slices in a volume of another contrast",
    aligns=("pose",),
    papers=(
        Paper(
            "abbas2022quasi",
            "Abbas, Batool and Lattanzi, Riccardo and Petchprapa, Catherine and Gerig, Guido",
            "2D/3D Quasi-Intramodal Registration of Quantitative Magnetic Resonance Images",
            "Workshop on Biomedical Image Registration (WBIR)",
            2022,
        ),
    ),
    commands=("locate SLICE... --in VOLUME",),
)
