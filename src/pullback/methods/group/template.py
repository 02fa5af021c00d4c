"""Templates: the mean image of many people, in the mean of their shapes, by any register of two images.

Rounds of two steps: everybody is registered to the template, and the template becomes the mean of all images seen
through their maps, after these were changed so that their mean is the identity (`mean_shape`). So it is nobody's
anatomy, whoever comes first (Guimond et al. 2000; Joshi et al. 2004; Avants et al. 2010). With weights by age it is
the template of an age (Davis et al. 2010).

Linear maps come first, of everybody at once. Pose is none of anatomy and is taken out; the mean stretch is of those
who have a weight, so that a template is as large as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from pullback.alignment import Pair, Register
from pullback.data import preprocessed
from pullback.errors import InputError
from pullback.group import Group, GroupAlignment
from pullback.methods.group.mean_shape import moved_by, sharpness, towards, without_mean
from pullback.methods.pair.classical import FAST
from pullback.solvers import Refine, timed
from pullback.space import Affine, Displacement, Grid, Image, Transform, canonical, pull

Tensors = dict[str, Tensor]
Keep = Callable[[str, str, Callable[[], Tensors]], Tensors]
"""What answers with the tensors of a piece of work, by its stage and name, which are made unless they are known."""
TEMPLATE, NUMBERS, MEAN, MATRICES, FIELD = "template", "numbers", "mean", "matrices", "field"
ROUND = ("change", "sharpness", "motion mm", "mean before mm", "mean mm")
"""Numbers of a round: how far the template changed, as a share of its range; its sharpness; the mean length of all
displacements; the length of their mean before it was taken away, and after."""


def in_memory() -> Keep:
    """Return what keeps the tensors of the last round of each template."""
    kept: dict[str, tuple[str, dict[str, Tensors]]] = {}

    def keep(stage: str, name: str, make: Callable[[], Tensors]) -> Tensors:
        of = stage.rpartition(" ")[0]
        if of not in kept or kept[of][0] != stage:
            kept[of] = stage, {}
        known = kept[of][1]
        if name not in known:
            known[name] = make()
        return known[name]

    return keep


@dataclass(frozen=True, eq=False)
class Placed:
    """People, each with a linear map from one common world.

    Attributes:
        grid: of the common world.
        maps: `(n, d+1, d+1)` float64, common world → each.
    """

    grid: Grid
    maps: Tensor


@dataclass(frozen=True, eq=False)
class Template:
    """A template, and the maps from it to those whom it is made of.

    Attributes:
        image: intensities 0 … 1.
        who: numbers of the people that it is made of.
        weights: of each of them, 1 in sum.
        transform: the map from the template to a person, by the number; to another than these it is made when asked.
        rounds: numbers of each round, by `ROUND`.
    """

    image: Image
    who: Sequence[int]
    weights: Tensor
    transform: Callable[[int], Transform]
    rounds: Sequence[Mapping[str, float]] = field(default_factory=tuple)


@dataclass(frozen=True)
class TemplateBuilder:
    """A register of groups that makes a template of them.

    Attributes:
        linear: register of the first rounds, template ← each, of which only the linear map is taken; None leaves
            images where their headers put them.
        deformable: goes on from the linear map; None stops there, at the affine mean.
        linear_rounds, rounds: at most, of each.
        change: of the template, as a share of its range (mean over lit voxels), below which it is done.
        centred: whether the mean of the maps is made the identity. Without, the template follows whoever it began with.
        begin: number of the image that is the first template, in place of the mean of all; -1 for the mean.

    Raises:
        InputError: no rounds of what is there.
    """

    linear: Register | Refine | None = replace(FAST, deformable=None)
    deformable: Register | Refine | None = replace(FAST, initialise=None, linear=())
    linear_rounds: int = 2
    rounds: int = 4
    change: float = 0.005
    centred: bool = True
    begin: int = -1

    def __post_init__(self) -> None:
        if min(self.linear_rounds, self.rounds) < 1 or self.change < 0:
            raise InputError(f"TemplateBuilder: rounds of 1 or more and a change of 0 or more expected, got {self}")

    def __call__(self, group: Group) -> GroupAlignment:
        """Return maps from the template's world to each image; all weigh alike, whatever the edges.

        Raises:
            InputError: an image is constant.
        """
        images = [canonical(image) for image in group.images]
        found = self.template(images, self.placed(images))
        return GroupAlignment(group, tuple(found.transform(n) for n in range(len(images))))

    @torch.no_grad()
    def placed(self, images: Sequence[Image], keep: Keep | None = None) -> Placed:
        """Return linear maps of everybody, whose mean is the identity, pose and all.

        Args:
            images: along axes near R, A, S; read one at a time.
            keep: keeps what was done.
        """
        keep = in_memory() if keep is None else keep
        grid = common_grid([image.grid for image in images])
        shared = all(image.grid == grid for image in images)
        still = torch.eye(grid.ndim + 1, dtype=torch.float64)
        maps = torch.stack([still] * len(images))
        if self.linear is None:
            return Placed(grid, maps)
        if not shared:
            maps[:, :-1, -1] = torch.stack([_middle(preprocessed(image)) for image in images])
            maps[:, :-1, -1] -= maps[:, :-1, -1].mean(0)
        weights = torch.full((len(images),), 1 / len(images), dtype=torch.float64)
        everybody = range(len(images))
        begun = maps
        template = self._begun(images, grid, [Affine(matrix) for matrix in maps], weights, everybody)
        for number in range(1, self.linear_rounds + 1):
            stage = f"linear {number}"
            work = partial(self._linear_round, images, template, begun, weights, keep, stage)
            made = keep(stage, TEMPLATE, work)
            template, begun = Image(made[TEMPLATE], grid), made[MATRICES]
        return Placed(grid, begun)

    def _linear_round(
        self, images: Sequence[Image], template: Image, starts: Tensor, weights: Tensor, keep: Keep, stage: str
    ) -> Tensors:
        """Register everybody to a template, and make the next one."""
        assert self.linear is not None

        def aligned(n: int) -> Tensors:
            pair = Pair(template, preprocessed(images[n]))
            found = timed(pair, self.linear, Affine(starts[n])).transform.as_affine  # type: ignore[arg-type]
            if found is None:
                raise InputError(f"{type(self.linear).__name__}: a register with a linear answer expected")
            return {MATRICES: found.matrix.double().reshape(starts[n].shape).cpu()}

        found = [keep(stage, str(n), partial(aligned, n))[MATRICES] for n in range(len(images))]
        maps = torch.stack(found)
        if self.centred:
            maps = without_mean(maps, template.grid.centre, weights)
        everybody = range(len(images))
        mean = mean_image(images, template.grid, lambda n: Affine(maps[n]), weights, everybody)
        return {TEMPLATE: mean.data, MATRICES: maps}

    @torch.no_grad()
    def template(
        self,
        images: Sequence[Image],
        placed: Placed,
        weights: Tensor | None = None,
        keep: Keep | None = None,
        name: str = "",
    ) -> Template:
        """Return the template of people with weights.

        Args:
            images: as of `placed`.
            placed: their linear maps.
            weights: `(n,)`, 1 in sum; None weighs all alike. Who weighs nothing is not registered.
            keep: keeps what was done.
            name: of the template, for what is kept.

        Raises:
            InputError: an image is constant.
        """
        keep = in_memory() if keep is None else keep
        every = torch.full((len(images),), 1 / len(images), dtype=torch.float64) if weights is None else weights
        who = every.nonzero()[:, 0].tolist()
        maps, grid = placed.maps, placed.grid
        if self.centred:
            first = without_mean(maps[who], grid.centre, every[who], pose=False)[0]
            maps = maps @ (torch.linalg.inv(maps[who[0]]) @ first)
        starts = [Affine(matrix) for matrix in maps]
        template = self._begun(images, grid, starts, every, who)
        if self.deformable is None:
            return Template(template, who, every[who], lambda n: starts[n])
        rows: list[Mapping[str, float]] = []
        stage, mean, before = "", torch.zeros(()), template
        for number in range(1, self.rounds + 1):
            stage = f"{name} round {number}".strip()
            work = partial(self._round, images, template, starts, every, who, keep, stage)
            made = keep(stage, TEMPLATE, work)
            before, template, mean = template, Image(made[TEMPLATE], grid), made[MEAN]
            rows.append(dict(zip(ROUND, made[NUMBERS].tolist(), strict=True)))
            if rows[-1]["change"] < self.change:
                break
        back = towards(mean) if self.centred else torch.zeros_like(mean)

        @torch.no_grad()
        def transform(n: int) -> Transform:
            if n not in who:
                make = partial(self._deformed, images, template, starts, n)
                other = keep(f"{name} others 1".strip(), str(n), make)[FIELD]
                return starts[n] @ Displacement(other, grid)
            known = keep(stage, str(n), partial(self._deformed, images, before, starts, n))[FIELD]
            return starts[n] @ Displacement(moved_by(known, back), grid)

        return Template(template, who, every[who], transform, rows)

    def _round(
        self,
        images: Sequence[Image],
        template: Image,
        starts: Sequence[Affine],
        weights: Tensor,
        who: Sequence[int],
        keep: Keep,
        stage: str,
    ) -> Tensors:
        """Register everybody to a template, and make the next one."""
        grid = template.grid

        def known(n: int) -> Tensor:
            return keep(stage, str(n), partial(self._deformed, images, template, starts, n))[FIELD]

        inside = template.data.mean(1, keepdim=True) > 0.1
        total = torch.zeros(1, grid.ndim, *grid.shape, dtype=torch.float64)
        for n in who:
            total += float(weights[n]) * known(n)
        mean = total.to(template.data)
        back = towards(mean) if self.centred else torch.zeros_like(mean)
        left, motion = torch.zeros_like(total), 0.0
        for n in who:
            moved = moved_by(known(n), back)
            left += float(weights[n]) * moved
            motion += float(weights[n]) * _length(moved, grid, inside)
        made = mean_image(
            images, grid, lambda n: starts[n] @ Displacement(moved_by(known(n), back), grid), weights, who
        )
        lit = inside.expand_as(made.data) if bool(inside.any()) else torch.ones_like(made.data, dtype=torch.bool)
        change = float((made.data - template.data)[lit].abs().mean())
        numbers = [change, sharpness(made), motion, _length(mean, grid, inside), _length(left, grid, inside)]
        return {TEMPLATE: made.data, MEAN: mean, NUMBERS: torch.tensor(numbers, dtype=torch.float64)}

    def _deformed(self, images: Sequence[Image], template: Image, starts: Sequence[Affine], n: int) -> Tensors:
        """Return the displacement on the template's grid after which the linear map leads to an image."""
        assert self.deformable is not None
        found = timed(Pair(template, preprocessed(images[n])), self.deformable, starts[n]).transform
        rest = starts[n].inverse() @ found
        return {FIELD: rest.displacement(template.grid).to(template.data).detach().cpu()}

    def _begun(
        self, images: Sequence[Image], grid: Grid, starts: Sequence[Affine], weights: Tensor, who: Sequence[int]
    ) -> Image:
        """Return the first template."""
        if self.begin >= 0:
            return pull(preprocessed(images[self.begin]), starts[self.begin], onto=grid)
        return mean_image(images, grid, lambda n: starts[n], weights, who)


def mean_image(
    images: Sequence[Image], grid: Grid, maps: Callable[[int], Transform], weights: Tensor, who: Sequence[int]
) -> Image:
    """Return the weighted mean of images seen through their maps, 0 where fewer than half are seen.

    Args:
        images: intensities are normalised to 0 … 1.
        grid: of the mean.
        maps: from its world to the image of a number.
        weights: `(n,)`, 1 in sum.
        who: numbers of the images that count.
    """
    total: Tensor = torch.zeros(())
    seen: Tensor = torch.zeros(())
    for n in who:
        image = preprocessed(images[n])
        all_of_it = torch.ones(1, 1, *image.grid.shape, dtype=torch.bool)
        moved = pull(replace(image, mask=all_of_it), maps(n), onto=grid, outside=0.0)
        assert moved.mask is not None
        share = float(weights[n]) * moved.mask.double()
        total, seen = total + share * moved.data.double(), seen + share
    mean = torch.where(seen >= 0.5, total / seen.clamp(min=1e-12), torch.zeros_like(total))
    return Image(mean.float(), grid)


def common_grid(grids: Sequence[Grid]) -> Grid:
    """Return a grid that holds all images: theirs where they share one.

    Else it lies along R, A, S about the mean of their middles, with the median of their voxels' edges, and is as large
    as the largest along each axis. It does not depend on their order.
    """
    if all(grid == grids[0] for grid in grids):
        return grids[0]
    spacing = torch.stack([grid.spacing for grid in grids]).median(0).values
    extent = torch.stack([torch.tensor(grid.shape) * grid.spacing for grid in grids]).amax(0)
    middle = torch.stack([grid.centre for grid in grids]).mean(0)
    found = Grid.centred(tuple(int(n) for n in (extent / spacing).ceil()), tuple(spacing.tolist()))
    affine = found.affine.clone()
    affine[:-1, -1] += middle
    return Grid(found.shape, affine)


def _middle(image: Image) -> Tensor:
    """Return the centre of mass of an image, `(d,)` in the world, float64."""
    mass = image.data.double().mean((0, 1))
    along = []
    for axis, n in enumerate(mass.shape):
        profile = mass.sum([other for other in range(mass.ndim) if other != axis])
        along.append((profile * torch.arange(n, dtype=torch.float64)).sum() / profile.sum())
    return image.grid.to_world(torch.stack(along)[None, :, None])[0, :, 0]


def _length(displacement: Tensor, grid: Grid, inside: Tensor) -> float:
    """Return the mean length of a displacement in mm over voxels `inside`."""
    length = grid.to_mm(displacement.double()).norm(dim=1, keepdim=True)
    return float(length[inside].mean()) if bool(inside.any()) else 0.0
